"""The node's REST API as it is put together: which method goes which way."""

from __future__ import annotations

import pytest

from pgnode.api.methods import METHODS
from pgnode.api.rest.app import build
from pgnode.api.rest.pipeline import RequestPipeline
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import KEY, Call, Node, part
from tests.unit.api.rest.requests import USER, keyed


def made(node: Node) -> RequestPipeline:
    app = build(node.service(), api_key=KEY, max_body_bytes=100, body_timeout_seconds=1.0)
    assert isinstance(app, RequestPipeline)
    return app


def test_every_method_of_the_table_has_its_route() -> None:
    routes = {row.route for row in METHODS}
    assert made(Node()).routes == routes | {(method, f"{path}/") for method, path in routes}


async def test_the_usual_calls_are_answered() -> None:
    node = Node()
    node.reads.bodies = {"system": b"sys", "backend": b"back"}
    app = made(node)
    assert pb.BaseInfoResponse.FromString((await Call("GET", "/info", keyed(), []).run(app)).body).started
    assert (await Call("GET", "/stats/backend/", keyed(), []).run(app)).body == b"back"
    assert (await Call("GET", "/stats/system", keyed(), []).run(app)).body == b"sys"
    put = Call("PUT", "/user/sync", keyed(content_length=str(len(USER))), [part(USER)])
    assert (await put.run(app)).status == 200


def test_a_key_that_is_no_uuid_is_refused() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        build(Node().service(), api_key="", max_body_bytes=1, body_timeout_seconds=1.0)
