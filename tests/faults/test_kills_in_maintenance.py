"""The supervisor is killed in each step of a core update, of a hard reset, and of the import of 0.5.0's state."""

from __future__ import annotations

import asyncio
import itertools
import json
import platform
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.users import make_users
from tests.faults.conftest import PATIENT, READ_OFTEN, TAGS, Stage
from tests.faults.leftovers import TidyNode, tidy
from tests.faults.steps import RESET, RESET_NOT_STORED, RESET_STORED, SELECTION, UPDATE, Chosen, killed_at_each
from tests.faults.table import DROPPED
from tests.faults.trial import Trial
from tests.support import earlier_state as earlier
from tests.support import xray_command
from tests.support.certificates import make_certificate
from tests.support.polling import eventually
from tests.support.processes import core_pid
from tests.support.release_server import ReleaseServer, good_release
from tests.support.stored import stored_state

pytestmark = pytest.mark.timeout(400)

SMALL = {"WEB_CONCURRENCY": "1", "SERVICE_PROTOCOL": "rest"}
BROKEN = "26.12.0"
EXCHANGED = "the update was checked, and ends the previous core"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pgn") as made:
        yield Path(made)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(folder: Path) -> AsyncIterator[ReleaseServer]:
    certificate, key = make_certificate(folder, [], ["127.0.0.1"])
    async with ReleaseServer(certificate, key, platform.machine()) as running:
        running.release(BROKEN, good_release(BROKEN, "dies"))
        yield running


@pytest.fixture(scope="module")
def new_version(server: ReleaseServer) -> Callable[[], str]:
    """Releases a core that no update has been to."""
    numbers = itertools.count()

    def released() -> str:
        version = f"26.11.{next(numbers)}"
        server.release(version)
        return version

    return released


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(node_faults: ArmedFaults, folder: Path, server: ReleaseServer) -> AsyncIterator[NodeProcess]:
    """A node with an executable core, which takes releases from here."""
    env = {
        **(PATIENT | READ_OFTEN | SMALL),
        **node_faults.environment,
        "XRAY_EXECUTABLE_PATH": str(xray_command.install(folder)),
        "CORE_RELEASES_URL": f"http://127.0.0.1:{server.http_port}/releases",
    }
    async with TidyNode(env=env) as running:
        yield running


async def updated(stage: Stage, version: str) -> bool:
    """Ask for a core; whether that was answered with success."""
    return await done(stage, "core_update", {"core_version": version})


async def done(stage: Stage, job: str, request: Mapping[str, str]) -> bool:
    """Ask for a maintenance job; whether that was answered with success."""
    node = stage.node
    async with PanelClient(node.host, node.api_port, ca_file=node.ca_file, api_key=node.api_key) as desk:
        body, head = json.dumps(request).encode(), {"Content-Type": "application/json"}
        try:
            answer = await desk.request("POST", f"/node/{job}", body, headers=head, timeout_seconds=90)
        except (NoAnswerError, OSError):
            return False
        # The worker says 503 itself, when nobody answers it any more.
        assert answer.status in (200, 503), answer.body
        return answer.status == 200


@pytest.mark.fault("supervisor killed in a core update whose core was checked and not taken yet")
async def test_update_before_the_exchange(stage: Stage, new_version: Callable[[], str]) -> None:
    await stage.begin(make_users(20, TAGS))
    core = core_pid(stage.node)
    await killed_at_each(stage, [("core_update.prepared", 0)], lambda _: updated(stage, new_version()))
    assert core_pid(stage.node) == core


@pytest.mark.fault("supervisor killed in each step of the exchange of a core update", core_ends=EXCHANGED)
async def test_update(stage: Stage, chosen: Chosen, new_version: Callable[[], str]) -> None:
    await stage.begin(make_users(20, TAGS))
    await killed_at_each(stage, chosen(UPDATE), lambda _: updated(stage, new_version()))


@pytest.mark.fault("supervisor killed in a core update when users are connected to the new core, before its answer")
async def test_update_whose_core_runs(stage: Stage, fault_round: int, new_version: Callable[[], str]) -> None:
    """The next supervisor finishes it: nobody is dropped a second time. Each round has another step."""
    await stage.begin(make_users(20, TAGS), hold=False)
    version, point = new_version(), SELECTION[fault_round % len(SELECTION)]
    stage.faults.arm(point, "wait")
    update = asyncio.create_task(updated(stage, version))
    await stage.faults.reached(point, 60)
    core = core_pid(stage.node)
    await stage.hold()
    await stage.struck_down()
    assert not await update
    await stage.check()
    assert core_pid(stage.node) == core
    assert (await stage.panel.info()).core_version == version
    assert json.loads((stage.node.state_dir / "cores" / "chosen.json").read_text())["version"] == version


@pytest.mark.fault(
    "supervisor killed before it restores the core in place of one that does not come up", core_ends=EXCHANGED
)
async def test_update_that_fails(stage: Stage) -> None:
    await stage.begin(make_users(20, TAGS))
    await killed_at_each(stage, [("step.undo_change", 0)], lambda _: updated(stage, BROKEN))


@pytest.mark.fault("supervisor killed in each step of a hard reset, before the core ends")
async def test_hard_reset_before_the_core_ends(stage: Stage) -> None:
    await stage.begin(make_users(20, TAGS))
    core = core_pid(stage.node)
    await killed_at_each(stage, RESET, lambda _: done(stage, "hard_reset", {}))
    assert core_pid(stage.node) == core


@pytest.mark.fault(
    "supervisor killed in each step of a hard reset, after the core ended", core_ends="a hard reset ends the core"
)
async def test_hard_reset_after_the_core_ended(stage: Stage, whole: bool) -> None:
    """All is there again, or all is forgotten; a start finds either well."""
    users = make_users(20, TAGS)
    await stage.begin(users)
    steps = [*RESET_NOT_STORED, *RESET_STORED] if whole else [RESET_NOT_STORED[-1], RESET_STORED[0]]
    for point, _ in steps:
        stage.faults.arm(point, "kill")
        assert not await done(stage, "hard_reset", {}), point
        assert stage.faults.reached_by(point) == stage.node.pid, point
        await stage.struck_down()
        if (point, 0) in RESET_NOT_STORED:
            await stage.check()
        else:
            await eventually(lambda: core_pid(stage.node) == 0, "no core runs")
            with pytest.raises(PanelError) as caught:
                await stage.panel.backend_stats()
            assert caught.value.text == "backend not initialized"
            assert not stored_state(stage.node).users
            await tidy(stage.node, stage.trial)
        assert await stage.record.start(stage.config, users)
        await stage.check()
    stage.trial.tried(len(steps))


@pytest.mark.fault(
    "supervisor killed in each step of the import of 0.5.0's state",
    unmeasured={DROPPED: "the core of 0.5.0 has ended by then"},
)
async def test_import(faults: ArmedFaults, trial: Trial) -> None:
    with tempfile.TemporaryDirectory(prefix="pgn") as made:
        state_dir = Path(made) / "state"
        state_dir.mkdir()
        earlier.unpack(state_dir)
        node = NodeProcess(state_dir=state_dir, env={**SMALL, **faults.environment})
        trial.struck()
        steps = ("import.read", "import.stored")
        for step in steps:
            faults.arm(step, "kill")
            await node.spawn()
            assert await faults.reached(step, 60) == node.pid
            await node.wait()
        try:
            await node.start()
            state = stored_state(node)
            trial.changes(earlier.USERS - len(state.users), earlier.USERS)
            moved = earlier.moved()
            trial.bytes(
                sum(abs(state.counters[name].total - size) for name, size in moved.items()), sum(moved.values())
            )
            assert len(state.users) == earlier.USERS
            assert {name: state.counters[name].total for name in moved} == moved
            assert {name for name in moved if state.counters[name].reported} == set(earlier.given())
            assert sorted(path.name for path in state_dir.glob("store*")) == ["store.0.5"]
            trial.well()
            trial.tried(len(steps))
            await tidy(node, trial)
        finally:
            await node.stop()
