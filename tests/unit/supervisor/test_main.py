"""A node from start to end, with parts that only note that they were asked."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.bus.state import State
from pgnode.errors import ChildFailedError, StateDirBusyError, TaskFailedError
from pgnode.os_support import streams
from pgnode.settings import Settings, read_api_key
from pgnode.settings.difference import Difference
from pgnode.supervisor import main
from pgnode.supervisor.control.progress import Phase
from pgnode.supervisor.host import identity
from pgnode.supervisor.host.identity import Identity
from pgnode.supervisor.host.restored_state import READY
from pgnode.supervisor.main import EXIT_KILLED, EXIT_NOT_RESTARTED, Supervisor
from pgnode.supervisor.processes.inheritance import Inheritance
from pgnode.supervisor.processes.restart_in_place import HELD_SIGNALS, RestartStatus, Trial
from pgnode.supervisor.tasks import CHANGES, LOGS, SESSIONS, TaskSpec
from tests.support.polling import eventually
from tests.support.valkey import TestValkey
from tests.unit.supervisor.fakes import LEFT, Parts

#: The key of a backup.
RESTORED_KEY = "00000000-0000-4000-8000-000000000001"

WHO = Identity("key", key_is_new=False, cert_is_new=False)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def supervisor(parts: Parts) -> Supervisor:
    return Supervisor(cast(Any, parts))


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """This process's handlers of signals, which are as they were in the end."""
    before = {number: signal.getsignal(number) for number in HELD_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_a_node_is_started_and_ended_in_order(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    running = asyncio.create_task(supervisor(parts).run(WHO))
    await eventually(lambda: "is ready" in capsys.readouterr().out, "the banner is shown")
    await eventually(lambda: parts.progress.phase is Phase.READY, "it says so")
    started = list(parts.calls)
    order = ["pids.end_orphans", "valkey.start", "figures.restore", "payouts.restore", "node.introduce", "api.start"]
    assert [call for call in started if call in order] == order
    assert "node.restore" in started
    signal.raise_signal(signal.SIGTERM)
    assert await running == 0
    ended = [call for call in parts.calls[len(started) :] if call != "killed"]
    assert ended == [
        *("api.stop", "maintenance.close", "node.shut_down", "pump.pass_on", "storing.store_now", "committer.close"),
        *("store.close", "server.close", "redis.aclose", "valkey.stop"),
    ]


async def test_a_start_that_fails_ends_what_was_started(parts: Parts) -> None:
    async def fails() -> None:
        raise ChildFailedError("gunicorn has no luck")

    parts.processes.api.start = fails
    with pytest.raises(ChildFailedError, match="no luck"):
        await supervisor(parts).run(WHO)
    assert "node.shut_down" in parts.calls
    assert "valkey.stop" in parts.calls


async def test_a_signal_while_starting_ends_it(parts: Parts) -> None:
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    parts.processes.api.start = slow
    running = asyncio.create_task(supervisor(parts).run(WHO))
    await begun.wait()
    signal.raise_signal(signal.SIGINT)
    assert await running == 0


@pytest.mark.parametrize("task", [CHANGES, SESSIONS])
async def test_what_needs_the_core_begins_when_that_was_taken_over(parts: Parts, task: TaskSpec) -> None:
    found, begun, others = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def restore(_stored: object) -> None:
        await found.wait()

    def begins(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            event.set()
            await asyncio.Event().wait()

        return work

    parts.node.restore = restore
    parts.tasks |= {task: begins(begun), LOGS: begins(others)}
    running = asyncio.create_task(supervisor(parts).run(WHO))
    await others.wait()
    assert not begun.is_set()
    found.set()
    await begun.wait()
    signal.raise_signal(signal.SIGTERM)
    assert await running == 0


async def test_a_supervisor_that_cannot_go_on_leaves_the_core_running(parts: Parts) -> None:
    async def fails() -> None:
        raise ChildFailedError("only an operator can mend this")

    parts.tasks[LOGS] = fails
    parts.core.running = SimpleNamespace(pid=0)
    with pytest.raises(ChildFailedError, match="mend"):
        await supervisor(parts).run(WHO)
    assert "node.shut_down" not in parts.calls
    assert "store.close" in parts.calls


async def test_a_start_that_fails_leaves_a_core_that_was_taken_over_running(parts: Parts) -> None:
    async def fails() -> None:
        raise ChildFailedError("gunicorn cannot be started: No space left on device")

    parts.processes.api.start = fails
    parts.core.running = SimpleNamespace(pid=0, adopted=True)
    with pytest.raises(ChildFailedError, match="No space"):
        await supervisor(parts).run(WHO)
    assert "node.shut_down" not in parts.calls
    assert "store.close" in parts.calls


async def test_a_second_signal_ends_it_at_once(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    ending = asyncio.Event()

    async def slow() -> None:
        ending.set()
        await asyncio.Event().wait()

    parts.node.shut_down = slow
    core = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    parts.core.running = core
    running = asyncio.create_task(supervisor(parts).run(WHO))
    await eventually(lambda: "is ready" in capsys.readouterr().out, "the banner is shown")
    signal.raise_signal(signal.SIGTERM)
    await ending.wait()
    signal.raise_signal(signal.SIGTERM)
    assert await running == EXIT_KILLED
    assert parts.calls.count("killed") == 2
    assert await core.wait() == -signal.SIGKILL


async def test_an_external_redis_is_waited_for(parts: Parts, valkey: TestValkey) -> None:
    parts.settings = parts.settings.model_copy(update={"redis_url": valkey.url})
    parts.processes.valkey = None
    running = asyncio.create_task(supervisor(parts).run(WHO))
    await eventually(lambda: "api.start" in parts.calls, "the start goes on")
    assert "ownership.acquire" in parts.calls
    signal.raise_signal(signal.SIGTERM)
    assert await running == 0
    assert "ownership.release" in parts.calls


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process, which is left as it was: it is no node's."""
    monkeypatch.setattr(streams, "make_safe", lambda: None)
    for name in ("allow_many_files", "keep_large_blocks_apart", "confine", "hand_over", "give_way_to_the_core"):
        monkeypatch.setattr(main, name, lambda *_, found=[] if name == "confine" else None: found)
    umask = os.umask(0o022)
    yield
    os.umask(umask)


def test_a_node_is_run_with_its_settings_until_it_is_told_to_end(
    parts: Parts, process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, lines = parts.settings, list[object]()
    parts.pump.node_line = lines.append

    async def told_to_end() -> None:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()

    parts.tasks[CHANGES] = told_to_end
    logging: list[object] = []

    def compose(given: Settings, *_others: object) -> Any:
        assert given is settings
        return parts

    monkeypatch.setattr(main, "compose", compose)
    monkeypatch.setattr(main, "set_up_logging", lambda *arguments: logging.extend(arguments))
    # What a restore had decided, and did not come to.
    (settings.state_dir / READY).mkdir(parents=True)
    (settings.state_dir / READY / "api_key").write_text(f"{RESTORED_KEY}\n")
    assert main.run(settings) == 0
    assert read_api_key(settings) == RESTORED_KEY
    assert os.umask(0o022) == 0o077, "its files are for this user alone"
    assert logging == [parts.node_log, parts.pump.node_line]
    assert settings.cert_file.exists()
    assert "storing.store_now" in parts.calls, "it ended in order"


def test_a_second_node_with_the_same_folder_is_refused(parts: Parts, process: None) -> None:
    identity.prepare_state_dir(parts.settings)
    with identity.lock_state_dir(parts.settings), pytest.raises(StateDirBusyError):
        main.run(parts.settings)


async def ready(parts: Parts, who: Supervisor) -> asyncio.Task[int]:
    """The supervisor's run, once it is ready."""
    running = asyncio.create_task(who.run(WHO))
    await eventually(lambda: RestartStatus.read(parts.settings.run_dir) is not None, "it is ready")
    return running


@pytest.fixture
def restartable(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Parts of which the core can be held still, and a version that can start."""
    identity.prepare_state_dir(parts.settings)
    parts.node.core_lock = asyncio.Lock()
    parts.node.state = State.RUNNING
    monkeypatch.setattr(main, "VersionTrial", lambda *_: parts.returns(Trial()))
    return parts


async def test_a_restart_leaves_everything_to_the_next_supervisor(restartable: Parts) -> None:
    parts = restartable
    parts.processes.valkey.hand_over = lambda: replace(LEFT, name="valkey")
    who = supervisor(parts)
    running = await ready(parts, who)
    parts.calls.clear()
    signal.raise_signal(signal.SIGUSR2)
    assert await running == EXIT_NOT_RESTARTED
    assert who.left == Inheritance(
        sockets={"SERVICE_PORT": 7},
        processes=(LEFT, replace(LEFT, name="valkey")),
        restarts=1,
        core_rest="half",
        log_counted={"source": "one", "number": 7},
        revision=5,
        log_lines=parts.node_log.lines.left(),
    )
    assert parts.calls == [
        *("maintenance.close", "storing.store_now", "pump.pass_on", "committer.close", "store.close", "server.close"),
        "redis.aclose",
    ]


async def test_a_signal_that_comes_meanwhile_is_left_to_the_next_supervisor(
    restartable: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[signal.Signals] = []
    monkeypatch.setattr(main, "hold_signals", held.extend)

    async def asked() -> None:
        signal.raise_signal(signal.SIGTERM)

    restartable.store.close = asked
    running = await ready(restartable, supervisor(restartable))
    signal.raise_signal(signal.SIGUSR2)
    assert await running == EXIT_NOT_RESTARTED
    assert held == [signal.SIGTERM]


async def test_what_cannot_be_closed_is_left_as_it_is(restartable: Parts) -> None:
    async def fails() -> None:
        raise OSError(28, "No space left on device")

    restartable.store.close = fails
    who = supervisor(restartable)
    running = await ready(restartable, who)
    signal.raise_signal(signal.SIGUSR2)
    assert await running == EXIT_NOT_RESTARTED
    assert who.left is not None


async def test_the_next_supervisor_takes_everything_over(
    restartable: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = restartable
    parts.inheritance = Inheritance(restarts=4, processes=(replace(LEFT, name="valkey"),))
    parts.processes.api.taken_over = True
    parts.processes.api.renew = parts.returns("gunicorn was not ready")
    running = await ready(parts, supervisor(parts))
    status = RestartStatus.read(parts.settings.run_dir)
    assert status is not None
    assert (status.restarts, status.trouble) == (4, "gunicorn was not ready")
    assert "valkey.start" not in parts.calls
    assert "restarted in place" in capsys.readouterr().out
    signal.raise_signal(signal.SIGTERM)
    assert await running == 0


async def test_an_end_that_was_asked_for_meanwhile_finds_the_core_first(restartable: Parts) -> None:
    restartable.inheritance = Inheritance(restarts=1)

    async def asked() -> None:
        signal.raise_signal(signal.SIGTERM)

    restartable.processes.api.open = asked
    assert await supervisor(restartable).run(WHO) == 0
    assert restartable.calls.index("node.restore") < restartable.calls.index("node.shut_down")


async def test_a_version_that_cannot_start_is_refused(restartable: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "VersionTrial", lambda *_: restartable.returns(Trial("No module named x")))
    running = await ready(restartable, supervisor(restartable))
    signal.raise_signal(signal.SIGUSR2)

    def refused() -> bool:
        status = RestartStatus.read(restartable.settings.run_dir)
        return status is not None and (status.refused, status.reason) == (1, "No module named x")

    await eventually(refused, "the reason is told")
    assert not running.done()
    signal.raise_signal(signal.SIGTERM)
    assert await running == 0


async def test_settings_are_read_anew_where_that_is_asked_for(
    restartable: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [Trial()]

    async def told() -> Trial:
        return trials[0]

    monkeypatch.setattr(main, "VersionTrial", lambda *_: told)
    running = await ready(restartable, supervisor(restartable))
    signal.raise_signal(signal.SIGHUP)

    def reread() -> bool:
        status = RestartStatus.read(restartable.settings.run_dir)
        return status is not None and status.rereads == 1

    await eventually(reread, "no setting is different")
    assert not running.done()
    trials[0] = Trial(difference=Difference(taken=("DEBUG",)))
    signal.raise_signal(signal.SIGHUP)
    assert await running == EXIT_NOT_RESTARTED


def fails_with(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fails() -> None:
        raise error

    return fails


async def test_a_task_that_cannot_go_on_restarts_the_supervisor(restartable: Parts) -> None:
    restartable.tasks[LOGS] = fails_with(TaskFailedError("for ever"))
    who = supervisor(restartable)
    assert await who.run(WHO) == EXIT_NOT_RESTARTED
    assert who.left is not None
    assert len(who.left.failures) == 1
    assert "node.shut_down" not in restartable.calls


async def test_so_does_what_nobody_expected(restartable: Parts) -> None:
    restartable.inheritance = Inheritance(restarts=1, failures=(time.monotonic(),))
    who = supervisor(restartable)

    async def restore(_stored: object) -> None:
        raise RuntimeError("unexpected")

    restartable.node.restore = restore
    restartable.core.running = SimpleNamespace(pid=-1, adopted=True)
    assert await who.run(WHO) == EXIT_NOT_RESTARTED
    assert who.left is not None
    assert len(who.left.failures) == 2


@pytest.mark.parametrize("error", [TaskFailedError("for ever"), RuntimeError("unexpected")])
async def test_what_repeats_ends_the_supervisor_and_leaves_the_core(restartable: Parts, error: Exception) -> None:
    now = time.monotonic()
    restartable.inheritance = Inheritance(restarts=3, failures=(now, now, now))
    restartable.processes.api.start = fails_with(error)
    restartable.core.running = SimpleNamespace(pid=-1, adopted=True)
    who = supervisor(restartable)
    with pytest.raises(type(error), match=str(error)):
        await who.run(WHO)
    assert who.left is None
    assert "node.shut_down" not in restartable.calls


def test_it_becomes_the_next_one(restartable: Parts, process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Inheritance] = []
    monkeypatch.setattr(main, "compose", lambda *_: restartable)
    monkeypatch.setattr(main, "set_up_logging", lambda *_: None)
    monkeypatch.setattr(main, "become_next", lambda left, _environment: became.append(left))

    async def asked() -> None:
        signal.raise_signal(signal.SIGUSR2)
        await asyncio.Event().wait()

    restartable.tasks[CHANGES] = asked
    assert main.run(restartable.settings) == EXIT_NOT_RESTARTED
    [left] = became
    assert left.lock >= 0
    assert left.restarts == 1
