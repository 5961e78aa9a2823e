"""``pgnode restart``, beside something that answers a signal like a supervisor."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import psutil
import pytest
from click.testing import CliRunner, Result

from pgnode.bus.commands import Kind
from pgnode.cli import main, restart
from pgnode.cli.restart import EXIT_NOT_WELL, restart_node
from pgnode.errors import NodeError, NotAnsweringError, NotRunningError, OperatorError, UnavailableError
from pgnode.settings import Settings, load
from pgnode.supervisor.host import identity
from pgnode.supervisor.processes.restart_in_place import RestartStatus

#: What the supervisor says before. It is this process, which writes its own pid.
BEFORE = RestartStatus(0, 2, "1.0")


def write(status: RestartStatus, run_dir: Path) -> None:
    replace(status, pid=os.getpid()).write(run_dir)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    found = load()
    identity.prepare_state_dir(found)
    return found


@pytest.fixture
def answer(settings: Settings) -> Iterator[Callable[[RestartStatus | None], None]]:
    """A node runs, and says this when it gets the signal."""
    said: list[RestartStatus | None] = []

    def handle(_number: int, _frame: FrameType | None) -> None:
        if said and (status := said[0]) is not None:
            # Written whole at some later moment.
            threading.Timer(0.01, write, [status, settings.run_dir]).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGUSR2, signal.SIGHUP)}
    write(BEFORE, settings.run_dir)
    with identity.lock_state_dir(settings):
        yield said.append
    for number, handler in before.items():
        signal.signal(number, handler)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["restart", *arguments])


def test_it_waits_for_the_next_supervisor(answer: Callable[[RestartStatus], None]) -> None:
    answer(replace(BEFORE, restarts=3, version="1.1"))
    result = run()
    assert (result.exit_code, result.output) == (0, f"pgnode 1.1 runs now, restarted in place (pid {os.getpid()})\n")


def test_a_refusal_is_told(answer: Callable[[RestartStatus], None]) -> None:
    answer(replace(BEFORE, refused=1, reason="No module named x"))
    result = run()
    assert result.exit_code == 1
    assert "was not restarted and goes on as it is: No module named x" in result.output


def test_what_is_not_well_is_told(answer: Callable[[RestartStatus], None]) -> None:
    answer(replace(BEFORE, restarts=3, trouble="gunicorn was not ready"))
    result = run()
    assert result.exit_code == EXIT_NOT_WELL
    assert "a part of the version before goes on: gunicorn was not ready" in result.output


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (replace(BEFORE, restarts=3, changed="taken: DEBUG"), 0, "settings taken: DEBUG\n"),
        (replace(BEFORE, rereads=1), 0, "no setting is different; GUNICORN_CONF was read again\n"),
        (replace(BEFORE, refused=1, reason="REDIS_URL cannot change"), 2, "goes on as it is: REDIS_URL cannot change"),
        (replace(BEFORE, restarts=3, changed="taken: DEBUG", trouble="some"), EXIT_NOT_WELL, "before goes on: some"),
    ],
)
def test_a_reload_says_what_became_of_it(
    answer: Callable[[RestartStatus], None], status: RestartStatus, code: int, said: str
) -> None:
    answer(status)
    result = CliRunner().invoke(main, ["reload"])
    assert result.exit_code == code
    assert said in result.output


@pytest.mark.parametrize("command", ["reload", "restart"])
def test_a_slip_in_the_file_is_told_to_whoever_has_just_edited_it(
    answer: Callable[[RestartStatus], None], command: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("SERVICE_PROT=1\n")
    (tmp_path / "mine.env").write_text("WEB_CONCURENCY=1\n")
    answer(replace(BEFORE, restarts=3))
    result = CliRunner().invoke(main, [command, "--env-file", str(tmp_path / "mine.env"), "--json"])
    assert (result.exit_code, json.loads(result.stdout)["restarts_in_place"]) == (0, 3)
    assert result.stderr.splitlines() == [
        "SERVICE_PROT in .env means nothing here: did you mean SERVICE_PORT?",
        f"WEB_CONCURENCY in {tmp_path}/mine.env means nothing here: did you mean WEB_CONCURRENCY?",
    ]


def test_a_restart_says_which_settings_it_took(answer: Callable[[RestartStatus], None]) -> None:
    answer(replace(BEFORE, restarts=3, changed="taken: DEBUG"))
    assert run().output.endswith("settings taken: DEBUG\n")


def test_without_a_status_before_any_outcome_counts(
    answer: Callable[[RestartStatus], None], settings: Settings
) -> None:
    RestartStatus(1, 9, "0.9").write(settings.run_dir)
    answer(replace(BEFORE, restarts=1))
    assert run().exit_code == 0


def test_programs_get_an_object(answer: Callable[[RestartStatus], None]) -> None:
    answer(replace(BEFORE, restarts=3, version="1.1", changed="taken: DEBUG"))
    result = run("--json")
    assert json.loads(result.output) == {
        "version": "1.1",
        "pid": os.getpid(),
        "restarts_in_place": 3,
        "settings": "taken: DEBUG",
        "trouble": "",
        "core": None,
    }
    # The one before is the one that was just made.
    write(BEFORE, load().run_dir)
    result = CliRunner().invoke(main, ["reload", "--json"])
    assert (result.exit_code, json.loads(result.output)["settings"]) == (0, "taken: DEBUG")


def test_a_supervisor_that_was_stopped_is_asked_for_nothing(
    answer: Callable[[RestartStatus | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "kill", lambda *_: asked.append(1))
    monkeypatch.setattr(psutil.Process, "status", lambda _self: psutil.STATUS_STOPPED)
    with pytest.raises(NotAnsweringError, match="kill -CONT it"):
        restart_node(new_core=False)
    assert asked == []


def test_no_outcome_in_time_is_told(answer: Callable[[RestartStatus | None], None]) -> None:
    answer(None)
    with pytest.raises(OperatorError, match="did not say in time"):
        restart_node(new_core=False, wait_seconds=0.0)


def test_a_node_that_ends_meanwhile_is_told(
    answer: Callable[[RestartStatus | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(None)
    monkeypatch.setattr(psutil.Process, "status", lambda _self: psutil.STATUS_ZOMBIE)
    with pytest.raises(OperatorError, match="ended while it was restarted"):
        restart_node(new_core=False)

    def gone(_self: psutil.Process) -> bool:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil.Process, "is_running", gone)
    with pytest.raises(OperatorError, match="ended while it was restarted"):
        restart_node(new_core=False)


def test_a_node_that_has_just_ended_is_told(
    answer: Callable[[RestartStatus | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_pid: int, _number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", gone)
    with pytest.raises(NotRunningError, match="has just ended"):
        restart_node(new_core=False)


def test_without_a_node_there_is_nothing_to_restart(settings: Settings) -> None:
    result = run()
    assert result.exit_code == NotRunningError.exit_code
    assert "no node runs with STATE_DIR=" in result.output


def test_a_node_that_the_signal_would_end_gets_none(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "may_be_signalled", lambda *_: False)
    with identity.lock_state_dir(settings), pytest.raises(OperatorError, match="cannot be restarted in place"):
        restart_node(new_core=False)


def test_another_users_node_is_told(
    answer: Callable[[RestartStatus | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_pid: int, _number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", denied)
    with pytest.raises(OperatorError, match="another user's"):
        restart_node(new_core=False)


class Client:
    """A client of the bus, of which the supervisor answers."""

    outcome: bytes | NodeError = b""

    def __init__(self, *_: object) -> None:
        self.started = self.closed = False

    def start(self) -> None:
        self.started = True

    async def call(self, kind: Kind, _body: bytes, _seconds: float) -> bytes:
        assert kind is Kind.NEW_CORE
        if isinstance(self.outcome, NodeError):
            raise self.outcome
        return self.outcome

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (json.dumps({"detail": "a new core runs"}).encode(), 0, "a new core runs"),
        (UnavailableError("it refuses the config"), 1, "no new core was started: it refuses the config"),
    ],
)
def test_a_new_core_comes_after_that(
    answer: Callable[[RestartStatus], None],
    monkeypatch: pytest.MonkeyPatch,
    outcome: bytes | NodeError,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(restart, "CommandClient", type("Client", (Client,), {"outcome": outcome}))
    answer(replace(BEFORE, restarts=3))
    result = run("--core")
    assert result.exit_code == code
    assert said in result.output
