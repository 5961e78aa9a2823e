"""Nodes, real users and the panel's client for the tests in this folder; they are left out where the client cannot run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.settings import Settings
from pgnode.testing.configs import COUNTED_INBOUNDS, make_config, plain_inbounds
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.generated_docs import ROOT
from tests.panel.client import Client, Driver, Protocol
from tests.support.core_lists import inbound_users

HERE = Path(__file__).parent

#: The environment that `make panel` makes.
PYTHON = ROOT / ".venv-panel" / "bin" / "python"

#: Those that this version serves.
PROTOCOLS: tuple[Protocol, ...] = ("rest", "grpc") if "grpc_port" in Settings.model_fields else ("rest",)

#: The four protocols of the config; the inbounds are called so, too.
TAGS = ["VLESS", "VMess", "Trojan", "Shadowsocks"]
USERS = 50

LEFT_OUT = (
    "the tests with the panel's own client (tests/panel) were LEFT OUT: they need Python 3.12 or newer, "
    "and .venv-panel is not there; install one (pyenv's count) and run `make test`"
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One loop for all tests here, as nodes live longer than a test; none of them where the client cannot run."""
    here = [item for item in items if HERE in item.path.parents and "needs_client" in item.keywords]
    for item in here:
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    if PYTHON.exists() or not here:
        return
    if os.environ.get("CI", "").lower() in ("1", "true"):
        raise pytest.UsageError(LEFT_OUT)
    items[:] = [item for item in items if item not in here]
    config.hook.pytest_deselected(items=here)
    config.stash[_LEFT_OUT_KEY] = len(here)


_LEFT_OUT_KEY = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.stash.get(_LEFT_OUT_KEY, 0):
        terminalreporter.section("left out", yellow=True)
        terminalreporter.write_line(LEFT_OUT)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def driver() -> AsyncIterator[Driver]:
    """The process of the panel's clients."""
    async with Driver(PYTHON) as running:
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def target() -> AsyncIterator[Target]:
    """What users talk to."""
    async with Target() as running:
        yield running


@pytest.fixture(scope="package")
def node_faults(tmp_path_factory: pytest.TempPathFactory) -> ArmedFaults:
    """Fault points of the node."""
    return ArmedFaults(tmp_path_factory.mktemp("fault-points"))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def node(node_faults: ArmedFaults) -> AsyncIterator[NodeProcess]:
    """The node of all tests here; they leave it as they like, since each begins with a start."""
    env = {"STATS_UPDATE_INTERVAL_SECONDS": "0.3", "CORE_CALL_TIMEOUT_SECONDS": "20", **node_faults.environment}
    async with NodeProcess(env=env) as running:
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def beside(node: NodeProcess) -> AsyncIterator[PanelClient]:
    """Another caller of the node."""
    async with node.panel() as client:
        yield client


@dataclass
class Stage:
    """A node, its users, their ways into it, and the panel's client."""

    node: NodeProcess
    config: dict[str, Any]
    users: list[pb.User]
    core: ClientCore
    panel: Client

    async def emails(self, tag: str = "VLESS") -> set[str]:
        """The users of an inbound, as the core lists them."""
        return set(await inbound_users(self.node.run_dir / "core.sock", tag))


@pytest.fixture(scope="package")
def users() -> list[pb.User]:
    return make_users(USERS, TAGS)


@pytest.fixture(scope="package")
def config() -> dict[str, Any]:
    return make_config([item for item in plain_inbounds() if item["tag"] in TAGS]) | COUNTED_INBOUNDS


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def core(config: dict[str, Any], users: list[pb.User], target: Target) -> AsyncIterator[ClientCore]:
    """Ways in: each protocol as the user of that number, user 0 once more with another key and from two addresses."""
    by_tag = {item["tag"]: item for item in config["inbounds"]}
    links = [link(by_tag[tag], users[number], name=tag) for number, tag in enumerate(TAGS)]
    links.append(link(by_tag["VLESS"], make_user("new@demo", TAGS), name="new"))
    links.append(link(by_tag["VLESS"], make_user("new@demo", TAGS, key="2"), name="new, other key"))
    links += [
        link(by_tag["VLESS"], users[4], name=address, source_address=address) for address in ("127.0.0.3", "127.0.0.4")
    ]
    async with ClientCore(links, target) as running:
        yield running


@pytest.fixture(params=PROTOCOLS, scope="package")
def protocol(request: pytest.FixtureRequest) -> Protocol:
    found: Protocol = request.param
    return found


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def panel(driver: Driver, node: NodeProcess, protocol: Protocol) -> AsyncIterator[Client]:
    """The client of a protocol's tests."""
    client = await Client.create(driver, node, protocol)
    yield client
    await client.drop()


@pytest.fixture(scope="package")
def whole_stage(
    node: NodeProcess, config: dict[str, Any], users: list[pb.User], core: ClientCore, panel: Client
) -> Stage:
    return Stage(node, config, users, core, panel)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    """Fifty users in a core that runs. The start is the panel's: after the first it changes only what differs."""
    await whole_stage.panel.start(whole_stage.config, whole_stage.users)
    return whole_stage
