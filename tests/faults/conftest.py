"""One node with four workers for all faults; every test begins with its own users on it and has its own record."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb
from tests.faults.checker import Record, check, state_of
from tests.faults.held import HeldConnections, Holders, holders
from tests.faults.leftovers import TidyNode, tidy
from tests.faults.plugin import call_failed
from tests.faults.trial import Trial
from tests.support.processes import kill
from tests.support.valkey import running_valkey

HERE = Path(__file__).parent

#: Altered one by one, whatever changes: its transport does not outlive its listener.
ALTERED = "VLESS gRPC"
#: Swapped, where that is cheaper.
SWAPPED = "VLESS"
TAGS = [SWAPPED, ALTERED, "Trojan"]
#: Connections that are held: transports that outlive their listeners.
HELD = [SWAPPED, "Trojan"]

#: A core that stands still for some seconds does not hang.
PATIENT = {"CORE_CALL_TIMEOUT_SECONDS": "20"}
#: What connections moved is compared with what was counted, after each fault.
READ_OFTEN = {"STATS_UPDATE_INTERVAL_SECONDS": "0.5"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One loop for all tests in this folder: the node lives longer than a test."""
    for item in items:
        if HERE in item.path.parents and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@dataclass
class Stage:
    """The node, started with some users, and the record of what is asked of it from then on."""

    node: NodeProcess
    panel: PanelClient
    config: dict[str, Any]
    record: Record
    faults: ArmedFaults
    trial: Trial
    holders: Holders
    held: HeldConnections | None = None
    #: Who holds them.
    holder: pb.User | None = None

    async def begin(self, users: Sequence[pb.User], config: dict[str, Any] | None = None, *, hold: bool = True) -> None:
        """Start with these users, and one who holds connections from now on, or from :meth:`hold`; the record begins here."""
        if config is not None:
            self.config = config
        user = self.holders.next_user()
        users = [*users, user]
        await self.panel.start(self.config, users, timeout_seconds=60)
        self.record.initial = {user.email: state_of(user) for user in users}
        self.holder = user
        self.record.kept[:] = [user]
        if hold:
            await self.hold()

    async def hold(self) -> None:
        """Begin the connections that are held."""
        assert self.holder is not None
        self.held = self.holders.connections(self.node, self.holder, self.trial)
        await self.held.begin()

    async def check(self) -> None:
        """All is well: core, store and answers agree, and the connections held still move, and nothing is left behind."""
        await check(self.node, self.record, [item["tag"] for item in self.config["inbounds"]], self.trial)
        if self.held is not None:
            await self.held.go_on()
        self.trial.well()
        await tidy(self.node, self.trial)

    def struck(self, pid: int) -> None:
        """Kill a process; all has to be well again after that."""
        kill(pid)
        self.trial.struck()

    async def struck_down(self) -> None:
        """The supervisor is killed, or was a moment ago; another one follows."""
        self.node.send_signal(signal.SIGKILL)
        self.trial.struck()
        await self.node.wait()
        await self.node.start()

    async def end(self) -> None:
        """What the connections moved was counted, once."""
        if self.held is not None:
            await self.held.end()

    @contextlib.asynccontextmanager
    async def callers(self, count: int, emails: Callable[[int], str]) -> AsyncIterator[Load]:
        """``count`` callers, each changing the user ``emails(number)`` again and again, until the context ends."""
        load = Load(self.record, count, emails)
        tasks = [asyncio.create_task(load.run(number)) for number in range(count)]
        try:
            yield load
        finally:
            load.end.set()
            await asyncio.gather(*tasks)


class Load:
    """Callers at work."""

    def __init__(self, record: Record, count: int, emails: Callable[[int], str]) -> None:
        self.record = record
        self._emails = emails
        self.count = count
        self.end = asyncio.Event()
        self.answered = 0
        self._progress = asyncio.Event()

    async def run(self, number: int, record: Record | None = None) -> None:
        """Change the user of this number; ``record`` is another one to call through."""
        record = record or self.record
        turn = 0
        while not self.end.is_set():
            turn += 1
            tags = TAGS if turn % 5 else []
            if await record.one(make_user(self._emails(number), tags, key=f"{number} {turn}")):
                self.answered += 1
                self._progress.set()
            else:
                # The node is away, and says so at once.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.end.wait(), 0.1)

    async def progress(self, more: int, timeout_seconds: float = 90.0) -> None:
        """Wait until ``more`` calls were answered with success from now on."""
        wanted = self.answered + more
        async with asyncio.timeout(timeout_seconds):
            while self.answered < wanted:
                self._progress.clear()
                await self._progress.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(node_faults: ArmedFaults) -> AsyncIterator[NodeProcess]:
    env = PATIENT | READ_OFTEN | {"WEB_CONCURRENCY": "4", "GRPC_WORKERS": "0", **node_faults.environment}
    async with TidyNode(env=env) as running:
        yield running


@pytest.fixture(scope="module")
def node_faults(tmp_path_factory: pytest.TempPathFactory) -> ArmedFaults:
    return ArmedFaults(tmp_path_factory.mktemp("fault-points"))


def three_inbounds() -> dict[str, Any]:
    stream = {"network": "grpc", "grpcSettings": {"serviceName": "g"}}
    return make_config(
        [
            make_inbound(SWAPPED, "vless"),
            make_inbound(ALTERED, "vless", stream=stream),
            make_inbound("Trojan", "trojan"),
        ]
    )


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return three_inbounds()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def module_holders(request: pytest.FixtureRequest, config: dict[str, Any]) -> AsyncIterator[Holders]:
    """A user for every test of the module."""
    count = sum(item.path == request.path for item in request.session.items)
    async with holders(config, HELD, count) as made:
        yield made


@contextlib.asynccontextmanager
async def staged(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """The stage, whose connections end with what was counted of them when the test went through."""
    try:
        yield stage
        if not call_failed(request.node):
            await stage.end()
    finally:
        stage.faults.let_all_go()
        if stage.held is not None:
            await stage.held.close()


@dataclass(frozen=True)
class Shared:
    """What the tests of a module have in common."""

    node: NodeProcess
    config: dict[str, Any]
    faults: ArmedFaults
    holders: Holders


@pytest.fixture(scope="module")
def shared(node: NodeProcess, config: dict[str, Any], node_faults: ArmedFaults, module_holders: Holders) -> Shared:
    return Shared(node, config, node_faults, module_holders)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(request: pytest.FixtureRequest, shared: Shared, trial: Trial) -> AsyncIterator[Stage]:
    async with shared.node.panel() as panel:
        new = Stage(shared.node, panel, shared.config, Record(panel), shared.faults, trial, shared.holders)
        async with staged(new, request) as made:
            yield made


@pytest_asyncio.fixture(loop_scope="session")
async def lasting_stage(
    request: pytest.FixtureRequest, tmp_path: Path, trial: Trial
) -> AsyncIterator[tuple[Stage, str]]:
    """A node of its own whose bus outlives its supervisor, so that what was not answered comes again; and the bus's URL."""
    faults = ArmedFaults(tmp_path / "fault-points")
    config = three_inbounds()
    async with running_valkey() as bus, holders(config, HELD, 1) as made:
        env = (
            PATIENT
            | READ_OFTEN
            | {"WEB_CONCURRENCY": "4", "GRPC_WORKERS": "0", "REDIS_URL": bus.url, **faults.environment}
        )
        async with (
            TidyNode(env=env) as node,
            node.panel() as panel,
            staged(Stage(node, panel, config, Record(panel), faults, trial, made), request) as stage,
        ):
            yield stage, bus.url


@pytest.fixture
def chosen(whole: bool) -> Callable[[Sequence[tuple[str, int]]], Sequence[tuple[str, int]]]:
    """Picks the steps that are tried in this round: they are many, and a supervisor takes seconds to come up."""
    from tests.faults.steps import steps_chosen

    return lambda steps: steps_chosen(steps, whole=whole)
