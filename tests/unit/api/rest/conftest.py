"""The node's REST API on fakes, called without a server."""

from __future__ import annotations

import pytest

from pgnode.api.rest.app import build
from pgnode.api.rest.asgi import App
from tests.unit.api.fakes import KEY, Node
from tests.unit.api.rest.requests import LIMIT_BYTES


@pytest.fixture
def node() -> Node:
    made = Node()
    made.reads.bodies = {"system": b"sys", "backend": b"back"}
    return made


@pytest.fixture
def app(node: Node) -> App:
    return build(node.service(), api_key=KEY, max_body_bytes=LIMIT_BYTES, body_timeout_seconds=0.05, drain_seconds=0.01)
