"""Trying the installed version, becoming it, and telling what became of that."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pgnode import __version__
from pgnode.settings.difference import Difference
from pgnode.settings.handover import ENVIRONMENT_VARIABLE, Handover
from pgnode.settings.handover import VARIABLE as VARIABLE_OF_SETTINGS
from pgnode.supervisor.processes import restart_in_place
from pgnode.supervisor.processes.inheritance import VARIABLE, Inheritance
from pgnode.supervisor.processes.restart_in_place import (
    HELD_SIGNALS,
    STATUS_NAME,
    TRIAL_MODULE,
    TRIALS,
    RestartStatus,
    Trial,
    VersionTrial,
    become_next,
    hold_signals,
    trial_command,
    try_installed,
)


async def says(code: str, limit_seconds: float = 60.0) -> str:
    command = [sys.executable, "-S", "-c", code]
    return (await try_installed(command, dict(os.environ), limit_seconds=limit_seconds)).reason


async def test_a_version_that_can_start_is_not_refused() -> None:
    assert await says("print('9.9.9')") == ""


async def test_what_is_different_in_its_settings_is_taken() -> None:
    found = Difference(taken=("DEBUG",))
    handover = Handover(os.memfd_create("settings"))
    code = f"import os; os.fstat(int(os.environ[{VARIABLE_OF_SETTINGS!r}])); print({found.encode()!r})"
    try:
        trial = await try_installed([sys.executable, "-S", "-c", code], {}, handover)
    finally:
        os.close(handover.descriptor)
    assert trial == Trial(difference=found)


async def test_no_secret_of_the_start_is_in_its_environment() -> None:
    start = {"API_KEY": "opens the API", "METRICS_KEY": "opens the metrics", "LANG": "C"}
    code = (
        f"import json, os; found = os.pread(int(os.environ[{ENVIRONMENT_VARIABLE!r}]), 4096, 0); "
        "raise SystemExit(f'{sorted(os.environ)} {json.loads(found)}')"
    )
    trial = await try_installed([sys.executable, "-I", "-S", "-c", code], start)
    assert trial.reason in {f"{sorted(('LANG', ENVIRONMENT_VARIABLE, *more))} {start}" for more in ((), ("LC_CTYPE",))}


async def test_the_reason_is_the_last_line() -> None:
    assert (
        await says("print('first'); print('API_PORT=x is not allowed'); raise SystemExit(2)")
        == "API_PORT=x is not allowed"
    )
    assert "No module named" in await says("import no_such_module")
    assert await says("raise SystemExit(3)") == "the new version ended with exit code 3"


async def test_one_that_hangs_is_ended() -> None:
    assert "did not come up within 0.3 s" in await says("import time; time.sleep(600)", limit_seconds=0.3)


async def test_one_that_is_ended_by_what_asked_for_it_is_tried_again(tmp_path: Path) -> None:
    count = (
        "import os, signal, sys; name = sys.argv[1]; open(name, 'a').write('.'); "
        "os.kill(os.getpid(), signal.SIGUSR2) if os.path.getsize(name) < int(sys.argv[2]) else None"
    )
    for needed, reason in ((TRIALS, ""), (TRIALS + 1, "the new version ended with exit code -12")):
        file = tmp_path / str(needed)
        trial = await try_installed([sys.executable, "-S", "-c", count, str(file), str(needed)], {})
        assert (trial.reason, file.read_text()) == (reason, "." * TRIALS)


async def test_an_interpreter_that_has_gone_is_told(tmp_path: Path) -> None:
    assert "cannot be tried: No such file" in (await try_installed([str(tmp_path / "python")], {})).reason


def test_it_is_tried_as_it_was_started() -> None:
    assert trial_command(Path("/s"), None, ["python", "-m", "pgnode", "run"]) == [
        sys.executable, "-m", TRIAL_MODULE, "/s",
    ]  # fmt: skip
    assert trial_command(Path("/s"), None, ["python", "/bin/pgnode", "run"])[1] == "-P"
    assert trial_command(Path("/s"), Path("/etc/pgnode.env"))[-2:] == ["/s", "/etc/pgnode.env"]


async def test_a_version_beside_the_installed_one_is_tried_with_variables_of_its_own(tmp_path: Path) -> None:
    beside = tmp_path / "pgnode" / "supervisor"
    beside.mkdir(parents=True)
    for folder in (beside.parent, beside):
        (folder / "__init__.py").touch()
    (beside / "dry_start.py").write_text("raise SystemExit('this is the other one')\n")
    handover = Handover(os.memfd_create("settings"))
    try:
        trial = VersionTrial(tmp_path / "state", handover, {"STATE_DIR": "/nowhere"})
        assert "STATE_DIR=/nowhere is not the folder of the node that runs" in (await trial()).reason
        assert (await trial({"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"})).reason == "this is the other one"
    finally:
        os.close(handover.descriptor)
    assert "VersionTrial" in repr(trial)


def test_the_status_is_kept_also_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RestartStatus.read(tmp_path) is None
    RestartStatus(1, 0, "1.0").write(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restart_in_place, "write_atomically", full)
    status = RestartStatus(1, 2, "1.1", refused=1, reason="no", trouble="some")
    status.write(tmp_path)
    assert RestartStatus.read(tmp_path) == status
    monkeypatch.setattr(restart_in_place, "overwrite", full)
    RestartStatus(1, 3, "1.1").write(tmp_path)
    assert RestartStatus.read(tmp_path) == status
    (tmp_path / STATUS_NAME).write_text('{"pid": 1, "news": 2}')
    assert RestartStatus.read(tmp_path) is None


def test_the_next_supervisor_says_which_settings_it_took(tmp_path: Path) -> None:
    RestartStatus(os.getpid(), 1, "1.0", changed="taken: DEBUG", rereads=3).write(tmp_path)
    assert RestartStatus.of_this_process(tmp_path, 2) == RestartStatus(
        os.getpid(), 2, __version__, changed="taken: DEBUG"
    )
    # Another process begins anew.
    assert RestartStatus.of_this_process(tmp_path, 0) == RestartStatus(os.getpid(), 0, __version__)


@pytest.fixture
def handlers() -> Iterator[None]:
    """This process's handlers of signals, which are as they were in the end."""
    before = {number: signal.getsignal(number) for number in HELD_SIGNALS}
    yield
    hold_signals()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_next_program_is_what_this_one_was(handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Sequence[str], Mapping[str, str]]] = []

    def execute(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= set(HELD_SIGNALS)
        assert signal.sigpending() >= {signal.SIGTERM, signal.SIGHUP}, "they wait for the next program"
        seen.append((program, arguments, environment))
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "execve", execute)
    hold_signals([signal.SIGTERM])
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(FileNotFoundError):
        become_next(Inheritance(restarts=1), {"HOME": "/"})
    [(program, arguments, environment)] = seen
    assert (program, arguments) == (sys.executable, sys.orig_argv)
    assert set(environment) == {"HOME", VARIABLE}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(HELD_SIGNALS), "they are taken again"
    os.close(int(environment[VARIABLE]))
