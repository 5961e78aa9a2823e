"""Nodes for the end-to-end tests. All of these tests share one event loop, so that a module's tests can share a node."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target

SAMPLES = Path(__file__).parent.parent / "samples"
HERE = Path(__file__).parent

#: No gRPC worker: a third of what a node's start costs.
REST = {"GRPC_WORKERS": "0"}

#: Settings of all nodes here: figures are read often, so that tests need not wait for them, and a stop ends the core at
#: once, so that every test begins anew. A core that stands still for some seconds hangs only where a test is about that.
FAST = {
    "STATS_UPDATE_INTERVAL_SECONDS": "0.5",
    "STOP_LINGER_SECONDS": "0",
    "CORE_CALL_TIMEOUT_SECONDS": "20",
    **REST,
    # Folders of single tests, where their configs' log files are.
    "LOG_PATHS": tempfile.gettempdir(),
}

#: The same, and gRPC is served, too.
WITH_GRPC = {**FAST, "GRPC_WORKERS": "1"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One loop for all tests in this folder: nodes and client cores live longer than a test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a short path: the paths of unix sockets may not be long."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def wide_sample() -> dict[str, Any]:
    """The sample config with many protocols and transports."""
    config: dict[str, Any] = json.loads((SAMPLES / "wide.json").read_text())
    return config


@pytest.fixture(scope="module")
def balancer_sample() -> dict[str, Any]:
    """The sample config with balancers and an observatory."""
    config: dict[str, Any] = json.loads((SAMPLES / "balancer.json").read_text())
    return config


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node() -> AsyncIterator[NodeProcess]:
    """A node for all tests of a module; nothing is started on it yet."""
    async with NodeProcess(env=FAST) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def panel(node: NodeProcess) -> AsyncIterator[PanelClient]:
    """The panel of the module's node."""
    async with node.panel() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target() -> AsyncIterator[Target]:
    """What users talk to."""
    async with Target() as running:
        yield running
