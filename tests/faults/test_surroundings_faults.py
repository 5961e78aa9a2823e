"""A state folder that is somebody else's, and a clock that jumps: nobody else's process is touched, and users stay connected."""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import SYSTEM
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelError
from pgnode.testing.processes import is_running
from pgnode.wire import service_pb2 as pb
from pgnode.xray.process.record import start_ticks
from tests.faults.checker import Record
from tests.faults.conftest import HELD, PATIENT, READ_OFTEN, Stage, staged, three_inbounds
from tests.faults.held import holders
from tests.faults.leftovers import TidyNode
from tests.faults.load import caller_email, grpc_callers, grpc_pids, newcomers, under_load
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.processes import core_pid, gunicorn_master_pid, kill, worker_pids
from tests.support.said import said
from tests.support.valkey import running_valkey

pytestmark = pytest.mark.timeout(400)

#: What is enough where nodes are started again and again.
FEW = {"WEB_CONCURRENCY": "1", "GRPC_WORKERS": "0"}
DAY_SECONDS = 24 * 3600


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(node_faults: ArmedFaults) -> AsyncIterator[NodeProcess]:
    async with TidyNode(env=PATIENT | READ_OFTEN | FEW | {**node_faults.environment}) as running:
        yield running


@dataclass(frozen=True)
class Clocks:
    """The clock of a node, and that of its bus, which is on another host as it were."""

    bus_url: str
    #: By how many seconds the node's is ahead; no file, no seconds.
    file: Path

    async def set(self, ahead: int) -> None:
        """Have all processes of the node go by that time."""
        await asyncio.to_thread(self.file.write_text, str(ahead), encoding="ascii")
        await eventually(functools.partial(self._supervisor_is, ahead), "the supervisor goes by the new time")

    async def _supervisor_is(self, ahead: int) -> bool:
        redis = connect(self.bus_url, connections=1)
        try:
            # When it last published the machine's load.
            published_at = int(await redis.hget(Keys("pgnode").snapshot(SYSTEM), "at_ms") or 0) / 1000
        finally:
            await redis.aclose()
        return abs(published_at - time.time() - ahead) < DAY_SECONDS / 2


@pytest_asyncio.fixture(loop_scope="session")
async def clock_stage(
    request: pytest.FixtureRequest, tmp_path: Path, trial: Trial
) -> AsyncIterator[tuple[Stage, Clocks]]:
    """A node of its own, whose clock can be set, on a bus with another one."""
    faults, clock = ArmedFaults(tmp_path / "fault-points"), tmp_path / "seconds-ahead"
    config = three_inbounds()
    env = {"PYTHONPATH": str(Path(__file__).parent / "clock"), "CLOCK_FILE": str(clock), "WEB_CONCURRENCY": "2"}
    async with (
        running_valkey() as bus,
        holders(config, HELD, 1) as made,
        TidyNode(env=PATIENT | READ_OFTEN | env | {"REDIS_URL": bus.url}) as node,
        node.panel() as panel,
        staged(Stage(node, panel, config, Record(panel), faults, trial, made), request) as stage,
    ):
        yield stage, Clocks(bus.url, clock)


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process that has nothing to do with any node."""
    with subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"]) as process:
        yield process.pid
        process.kill()


def copy_folder(source: Path, target: Path) -> None:
    """Copy a state folder as an operator does: files, FIFOs, and the names of sockets."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def name_in_records(run_dir: Path, pid: int) -> None:
    """Have the records of a copied folder name a process as the core and as a child, as they may on another host."""
    children, core = run_dir / "children.json", run_dir / "core.json"
    noted = json.loads(children.read_text())
    noted["children"]["valkey"] = [pid, start_ticks(pid)]
    children.write_text(json.dumps(noted))
    core.write_text(json.dumps(json.loads(core.read_text()) | {"pid": pid, "start_ticks": start_ticks(pid)}))


async def says_that_its_port_is_in_use(node: NodeProcess) -> None:
    await eventually(lambda: "is in use" in node.output_text, "the node says that a port is in use", 60)
    await said(node, "noted pids are of another boot, host, container or folder")
    assert core_pid(node) == 0


def processes(node: NodeProcess) -> set[int]:
    """All that a node runs, but for short-lived ones."""
    return {gunicorn_master_pid(node), core_pid(node), *worker_pids(node), *grpc_pids(node)}


@pytest.mark.fault("state folder copied while its node runs, and a second node started with the copy")
async def test_a_copied_state_folder(stage: Stage, bystander: int) -> None:
    """The second node ends nobody, takes over nobody's core, and does not share its ports."""
    node, folder = stage.node, Path(tempfile.mkdtemp(prefix="pgn"))
    async with under_load(stage):
        before = processes(node)
        copied = NodeProcess(env=FEW, state_dir=folder / "state")
        try:
            await asyncio.to_thread(copy_folder, node.state_dir, copied.state_dir)
            await asyncio.to_thread(name_in_records, copied.run_dir, bystander)
            stage.trial.struck()
            await copied.start()
            await says_that_its_port_is_in_use(copied)
            async with copied.panel() as panel:
                assert (await panel.info()).node_version
                with pytest.raises(PanelError) as caught:
                    await panel.backend_stats()
                assert caught.value.status == 503
        finally:
            await copied.stop()
            await asyncio.to_thread(shutil.rmtree, folder)
        assert processes(node) == before
        assert is_running(bystander)


@pytest.mark.fault("state folder replaced by a backup while its core runs, and put back")
async def test_a_restored_state_folder(stage: Stage) -> None:
    """The core belongs to the folder that was moved away: it goes on, and is taken over when that folder is back."""
    node = stage.node
    aside = node.state_dir.with_name("state.aside")
    async with under_load(stage):
        core = core_pid(node)
        kill(node.pid)
        await node.wait()
        node.state_dir.rename(aside)
        await asyncio.to_thread(copy_folder, aside, node.state_dir)
        await node.start()
        await says_that_its_port_is_in_use(node)
        assert is_running(core)
        assert stage.held is not None
        for transfer in stage.held.transfers:
            await transfer.wait_rounds(2)
        kill(node.pid)
        await node.wait()
        await asyncio.to_thread(shutil.rmtree, node.state_dir)
        aside.rename(node.state_dir)
        await node.start()
        stage.trial.struck()
        assert core_pid(node) == core


@pytest.mark.fault(
    "clock set a day forward, a day back and right again, under callers over REST and gRPC; no call fails"
)
async def test_a_clock_that_jumps(clock_stage: tuple[Stage, Clocks]) -> None:
    """No limit, lease, heartbeat, ownership or timer of the node goes by a clock that can be set."""
    stage, clocks = clock_stage
    node = stage.node
    async with under_load(stage) as load, grpc_callers(stage, 4) as over_grpc, newcomers(node, 2) as strangers:
        first, before = len(stage.record.calls), processes(node)
        for ahead in (DAY_SECONDS, -DAY_SECONDS, 0):
            await clocks.set(ahead)
            stage.trial.struck()
            answered = strangers.answered
            await load.progress(60)
            await over_grpc.progress(10)
            await eventually(functools.partial(strangers.went_on, answered), "strangers are served")
            await stage.panel.stats(pb.UserStat, caller_email(0), reset=True)
            assert await stage.panel.stats(pb.Outbounds), "reads go on"
        assert not strangers.failed
        assert all(call.done for call in stage.record.calls[first:])
    assert processes(node) == before
    assert "another node uses this REDIS_PREFIX" not in node.output_text
