"""Processes are killed, again and again, and signals and commands rain on them: callers are served, users stay connected."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.settings import load as load_settings
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.processes import command_line, tree
from pgnode.testing.users import make_user, make_users
from tests.faults.conftest import PATIENT, READ_OFTEN, TAGS, Load, Stage
from tests.faults.leftovers import TidyNode
from tests.faults.load import grpc_callers, grpc_pids, newcomers, under_load
from tests.faults.test_disk_faults import may_mount
from tests.support.polling import eventually
from tests.support.processes import core_pid, gunicorn_master_pid, kill, valkey_pid, worker_pids
from tests.support.scrape import Monitor

pytestmark = pytest.mark.timeout(400)

NOT_YET = (NoAnswerError, OSError, PanelError)
KILLED = "the core itself was killed"
WORKERS = 3
#: How long workers are killed, in the suite and for the table.
STORM_SECONDS, WHOLE_STORM_SECONDS = 2.0, 30.0
#: Signals in one storm, and turns of commands to the bus.
SIGNALS, WHOLE_SIGNALS = 6, 30
TURNS, WHOLE_TURNS = 3, 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(node_faults: ArmedFaults) -> AsyncIterator[NodeProcess]:
    env = {"WEB_CONCURRENCY": str(WORKERS), "GRPC_WORKERS": "2", **node_faults.environment}
    async with TidyNode(env=PATIENT | READ_OFTEN | env) as running:
        yield running


@pytest.mark.fault("Gunicorn's master killed under 30 callers who change users")
async def test_gunicorns_master_killed(stage: Stage) -> None:
    async with under_load(stage):
        stage.struck(gunicorn_master_pid(stage.node))


@pytest.mark.fault("both gRPC workers killed under 8 callers who change users over gRPC")
async def test_grpc_workers_killed(stage: Stage) -> None:
    await stage.begin(make_users(8, TAGS))
    async with grpc_callers(stage, 8) as load:
        await load.progress(30)
        before = grpc_pids(stage.node)
        assert len(before) == 2
        for pid in before:
            stage.struck(pid)
        await load.progress(30)
    await stage.check()
    assert not set(before) & set(grpc_pids(stage.node))


@pytest.mark.fault("REST workers killed, one after the other, for 30 s under 30 callers who change users")
async def test_workers_killed_in_a_loop(stage: Stage, at_length: bool) -> None:
    seconds = WHOLE_STORM_SECONDS if at_length else STORM_SECONDS
    loop = asyncio.get_running_loop()
    killed = 0
    monitor = Monitor(stage.node)
    async with under_load(stage) as load:
        end = loop.time() + seconds
        # At least twice, however slow the machine is.
        while loop.time() < end or killed < 2:
            for pid in worker_pids(stage.node)[:1]:
                # One that ends by itself meanwhile is none of ours.
                with contextlib.suppress(ProcessLookupError):
                    kill(pid)
                    killed += 1
            # Callers are served all the while, and no counter falls.
            await load.progress(3)
            await monitor.scrape()
        # From the last of them.
        stage.trial.struck()
    await eventually(lambda: len(worker_pids(stage.node)) == WORKERS, "all workers are back")

    async def counted() -> bool:
        before = monitor.scrapes
        await monitor.scrape()
        return monitor.scrapes > before and monitor.sum("pgnode_user_changes_total") > 0

    await eventually(counted, "what callers changed is counted")
    assert monitor.sum("pgnode_api_requests_total") > 0


@pytest.mark.fault("memory runs out: all is killed in the kernel's own order, until only the core is left")
async def test_memory_runs_out(stage: Stage) -> None:
    """The kernel's scores say who is next; a limit of memory that ends the test's own machine is not needed for that."""
    node = stage.node
    async with under_load(stage):
        core = core_pid(node)
        # Nothing is beside the core that would have to be killed, too: multiprocess keeps no helper.
        assert not [line for process in tree(node.pid) if "resource_tracker" in (line := command_line(process))]
        # One that was taken over is no child of the supervisor's.
        scores = {pid: score_of(pid) for pid in {core, *(p.pid for p in tree(node.pid))}}
        order = sorted(scores, key=lambda pid: -scores[pid])
        assert order[-1] == core
        assert order.index(node.pid) > max(order.index(pid) for pid in [*worker_pids(node), *grpc_pids(node)])
        assert order.index(node.pid) > order.index(valkey_pid(node))
        for pid in order[:-1]:
            with contextlib.suppress(ProcessLookupError):
                stage.struck(pid)
        await node.wait()
        assert core_pid(node) == core
        await node.start()
        assert core_pid(node) == core


def score_of(pid: int) -> int:
    """How soon the kernel would end a process; the highest is the first."""
    with open(f"/proc/{pid}/oom_score", encoding="ascii") as file:
        return int(file.read())


@pytest.fixture
def read_only_run(node: NodeProcess) -> Iterator[ReadOnly]:
    """The folder of sockets and records, which may become read-only."""
    if not may_mount():
        pytest.skip(
            "this process may not mount a file system (CAP_SYS_ADMIN), and no folder is read-only for root otherwise"
        )
    made = ReadOnly(str(node.run_dir))
    yield made
    made.undo()


class ReadOnly:
    """A folder that is made read-only for everybody by mounting it on itself."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._mounted = False

    def do(self) -> None:
        subprocess.run(["mount", "--bind", self._folder, self._folder], check=True)
        self._mounted = True
        subprocess.run(["mount", "-o", "remount,bind,ro", self._folder], check=True)

    def undo(self) -> None:
        if self._mounted:
            subprocess.run(["umount", "-l", self._folder], check=True)
            self._mounted = False


@pytest.mark.fault("Valkey killed while the folder of its socket is read-only")
async def test_valkey_killed_with_a_read_only_folder(stage: Stage, read_only_run: ReadOnly) -> None:
    """No bus can come up: callers are told so, and users notice nothing."""
    node = stage.node
    async with under_load(stage):
        await asyncio.to_thread(read_only_run.do)
        stage.struck(valkey_pid(node))

        def refused() -> bool:
            return sum("child ended, restarting" in line and "child=valkey" in line for line in node.output) >= 2

        await eventually(refused, "it was tried, and cannot be", 60)
        with pytest.raises(PanelError) as caught:
            await stage.panel.sync_user(make_user("nobody@demo", TAGS))
        assert caught.value.status == 503
        assert caught.value.text
        await asyncio.to_thread(read_only_run.undo)


async def no_call_fails(
    stage: Stage, load: Load, numbers: list[signal.Signals], pid: int, *, makes_workers: bool = False
) -> None:
    """Send signals to a process while callers on kept and on new connections call; none of their calls fails."""
    node, first = stage.node, len(stage.record.calls)
    async with newcomers(node, 4) as strangers:
        for number in numbers:
            before, answered = set(worker_pids(node)), strangers.answered
            os.kill(pid, number)
            if makes_workers:
                # The next one comes while these come up.
                await eventually(functools.partial(has_new_worker, node, before), "the signal is obeyed")
            await load.progress(2)
            await eventually(functools.partial(strangers.went_on, answered), "strangers are served")
        stage.trial.struck()
        await load.progress(30)
    failed = [call for call in stage.record.calls[first:] if not call.done]
    assert not strangers.failed, f"{len(strangers.failed)} of {strangers.answered}, first {strangers.failed[0]}"
    assert not failed, f"{len(failed)} of {len(stage.record.calls) - first} changes failed"


def has_new_worker(node: NodeProcess, before: set[int]) -> bool:
    return bool(set(worker_pids(node)) - before)


def signals(at_length: bool, *kinds: signal.Signals) -> list[signal.Signals]:
    count = WHOLE_SIGNALS if at_length else SIGNALS
    return [kinds[number % len(kinds)] for number in range(count)]


@pytest.mark.fault("30 HUPs to Gunicorn's master under callers on kept and on new connections; no call fails")
async def test_hup_storm(stage: Stage, at_length: bool) -> None:
    async with under_load(stage) as load:
        master = gunicorn_master_pid(stage.node)
        await no_call_fails(stage, load, signals(at_length, signal.SIGHUP), master, makes_workers=True)
        assert gunicorn_master_pid(stage.node) == master
    await eventually(lambda: len(worker_pids(stage.node)) == WORKERS, "as many workers as ever")


@pytest.mark.fault("30 TTIN and TTOU to Gunicorn's master under callers on kept and on new connections; no call fails")
async def test_ttin_and_ttou_storm(stage: Stage, at_length: bool) -> None:
    async with under_load(stage) as load:
        master = gunicorn_master_pid(stage.node)
        kinds = signals(at_length, signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU)
        await no_call_fails(stage, load, kinds, master)
        assert gunicorn_master_pid(stage.node) == master
    # Gunicorn takes five waiting signals at most: which of a storm it takes is its own affair, but it goes on to obey.
    await eventually(lambda: obeys(master, stage.node), "as many workers as are wanted", 60)


def obeys(master: int, node: NodeProcess) -> bool:
    """Ask for one worker more or less until there are as many as at the beginning."""
    count = len(worker_pids(node))
    if count != WORKERS:
        os.kill(master, signal.SIGTTIN if count < WORKERS else signal.SIGTTOU)
    return count == WORKERS


@pytest.mark.fault("30 HUPs to the supervisor under callers on kept and on new connections; no call fails")
async def test_hup_storm_to_the_supervisor(stage: Stage, at_length: bool) -> None:
    async with under_load(stage) as load:
        await no_call_fails(stage, load, signals(at_length, signal.SIGHUP), stage.node.pid)


@pytest.mark.fault(
    "CLIENT KILL, FLUSHALL and CLIENT PAUSE to the bus, again and again, under 30 callers who change users"
)
async def test_storm_of_commands_to_the_bus(stage: Stage, at_length: bool) -> None:
    turns = WHOLE_TURNS if at_length else TURNS
    kinds = (
        ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        ("FLUSHALL",),
        ("CLIENT", "KILL", "TYPE", "pubsub"),
        ("CLIENT", "PAUSE", "300"),
    )
    async with under_load(stage) as load:
        redis = connect(load_settings(state_dir=stage.node.state_dir).bus_url, connections=1)
        try:
            for words in kinds * turns:
                await told(redis, *words)
                await load.progress(3)
            stage.trial.struck()
        finally:
            await redis.aclose()


async def told(redis: Redis, *words: str) -> None:
    """Have the bus carry out a command, also where it has cut our connection a moment ago."""

    async def carried_out() -> bool:
        await redis.execute_command(*words)  # type: ignore[no-untyped-call]
        return True

    await eventually(carried_out, " ".join(words), errors=BUS_ERRORS)
