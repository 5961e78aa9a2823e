"""A supervisor becomes another one: the same process, the same pid, perhaps a newer version. Its core and its workers go on.

Before anything is touched the new version is tried in a process of its own: :mod:`pgnode.supervisor.dry_start`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

from pgnode import __version__
from pgnode.os_support.environment import confine
from pgnode.os_support.files import overwrite, read_json, write_atomically
from pgnode.os_support.request_signals import ended_by_request
from pgnode.settings.difference import NO_DIFFERENCE, Difference
from pgnode.settings.handover import ENVIRONMENT_VARIABLE, Handover, hand_over_environment
from pgnode.supervisor.processes.inheritance import Inheritance, leave

log = structlog.get_logger(__name__)

#: What tries whether the new version can start.
TRIAL_MODULE: Final = "pgnode.supervisor.dry_start"

#: Seconds that it may take.
TRIAL_SECONDS: Final = 60.0

#: Attempts of one that is ended by the very signal that asked for it: a service manager may send that to all there are.
TRIALS: Final = 5

#: Characters of its reason that are told: the end.
REASON_CHARACTERS: Final = 500

#: Signals that wait while there is nobody to handle them.
HELD_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)

#: The file that tells ``pgnode restart`` what became of it, and the most that is read of it.
STATUS_NAME: Final = "restart.json"
_STATUS_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class RestartStatus:
    """What a supervisor says of restarts in place."""

    pid: int
    #: How often this process was restarted in place.
    restarts: int
    #: The version that runs.
    version: str
    #: How many were refused, and why the last one was.
    refused: int = 0
    reason: str = ""
    #: What did not go well at the last one; "" for nothing.
    trouble: str = ""
    #: Which settings it took; "" where none was different.
    changed: str = ""
    #: How often settings were read anew and none was different.
    rereads: int = 0

    @classmethod
    def of_this_process(cls, run_dir: Path, restarts: int) -> RestartStatus:
        """Return what this process may say when it is there.

        Args:
            run_dir: Where the supervisor before it said something.
            restarts: How often this process was restarted in place.

        Returns:
            Its status, with the settings that this restart took.
        """
        before, pid = cls.read(run_dir) if restarts else None, os.getpid()
        changed = before.changed if before is not None and before.pid == pid else ""
        return cls(pid, restarts, __version__, changed=changed)

    def write(self, run_dir: Path) -> None:
        """Say it; where that is not possible, nothing but the operator's command suffers."""
        path, content = run_dir / STATUS_NAME, json.dumps(asdict(self)).encode().ljust(2048)
        try:
            try:
                write_atomically(path, content, durable=False)
            except OSError:
                # A full disk still lets a file be changed that is there.
                overwrite(path, content)
        except OSError as error:
            log.warning("restart status not written", path=str(path), error=error.strerror)

    @classmethod
    def read(cls, run_dir: Path) -> RestartStatus | None:
        """Read what a supervisor said; None where none did."""
        try:
            return cls(**read_json(run_dir / STATUS_NAME, _STATUS_BYTES))
        except (OSError, ValueError, TypeError):
            return None


def trial_command(state_dir: Path, env_file: Path | None = None, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command that tries whether the version that is installed now can start.

    Args:
        state_dir: The folder that it has to work with.
        env_file: The file of settings that this process was started with.
        arguments: How this process was started.

    Returns:
        The words of the command line.
    """
    # Started as a module, a program finds modules in its working directory; as a script it does not.
    flags = [] if "-m" in (arguments or sys.orig_argv) else ["-P"]
    named = [str(env_file)] if env_file is not None else []
    return [sys.executable, *flags, "-m", TRIAL_MODULE, str(state_dir), *named]


@dataclass(frozen=True, slots=True)
class Trial:
    """What the version that is installed now says of its start."""

    #: Why it cannot start; "" when it can.
    reason: str = ""
    #: What is different in its settings.
    difference: Difference = NO_DIFFERENCE


async def try_installed(
    command: Sequence[str],
    environment: Mapping[str, str],
    handover: Handover | None = None,
    *,
    limit_seconds: float = TRIAL_SECONDS,
    folder: Path = Path("/tmp"),  # noqa: S108 - a file without a name
) -> Trial:
    """Try whether the version that is installed now can start.

    Args:
        command: See :func:`trial_command`.
        environment: The environment of the start. What children have no need of, the key among it, is handed over in a file
            without a name.
        handover: The settings that are in force, to compare with; None: they are not compared.
        limit_seconds: Seconds that it may take.
        folder: Where that file may be made.

    Returns:
        What it says.
    """
    left = TRIALS
    while True:
        trial, code = await _try_once(command, environment, handover, limit_seconds, folder)
        left -= 1
        if not ended_by_request(code) or not left:
            return trial


async def _try_once(
    command: Sequence[str],
    environment: Mapping[str, str],
    handover: Handover | None,
    limit_seconds: float,
    folder: Path,
) -> tuple[Trial, int]:
    """Return what the version says, and its exit code."""
    own = dict(environment)
    confine(own)
    try:
        whole = hand_over_environment(environment, folder)
    except OSError as error:
        return Trial(f"the new version cannot be tried: {error.strerror or error}"), 1
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **own,
                ENVIRONMENT_VARIABLE: str(whole),
                **(handover.environment if handover is not None else {}),
            },
            pass_fds=(whole, *(handover.pass_fds if handover is not None else ())),
        )
    except OSError as error:
        return Trial(f"the new version cannot be tried: {error.strerror or error} ({command[0]})"), 1
    finally:
        os.close(whole)
    try:
        async with asyncio.timeout(limit_seconds):
            output, _ = await process.communicate()
    except TimeoutError:
        return Trial(f"the new version did not come up within {limit_seconds:g} s"), 1
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    last = output.decode(errors="replace").strip().rpartition("\n")[2]
    code = 1 if process.returncode is None else process.returncode
    if code == 0:
        return Trial(difference=Difference.decode(last)), code
    return Trial(last[-REASON_CHARACTERS:] or f"the new version ended with exit code {code}"), code


class VersionTrial:
    """Tries versions as this process would be started with them.

    Args:
        state_dir: The folder that they have to work with.
        handover: The settings that are in force, to compare with.
        environment: The environment of the start; None: the present one.
        env_file: The file of settings of the start.
    """

    def __init__(
        self,
        state_dir: Path,
        handover: Handover,
        environment: Mapping[str, str] | None = None,
        env_file: Path | None = None,
    ) -> None:
        self._command = trial_command(state_dir, env_file)
        self._handover = handover
        self._folder = state_dir
        self._environment = dict(environment if environment is not None else os.environ)

    def __repr__(self) -> str:
        return f"VersionTrial({self._command})"

    async def __call__(self, variables: Mapping[str, str] | None = None) -> Trial:
        """Try the version that is found with these variables; without any, the one that is installed now."""
        environment = {**self._environment, **(variables or {})}
        return await try_installed(self._command, environment, self._handover, folder=self._folder)


#: Signals that came while nobody handled them.
_held: list[int] = []


def _remember(number: int, _frame: FrameType | None) -> None:
    _held.append(number)


def hold_signals(asked: Iterable[signal.Signals] = ()) -> None:
    """Remember signals from here on: nobody would handle them, and they would end this process and not the core.

    Args:
        asked: Those that came a moment ago.
    """
    _held[:] = asked
    for number in HELD_SIGNALS:
        signal.signal(number, _remember)


def release_signals() -> None:
    """Take the signals that waited; whoever handles them is there."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)


def become_next(inheritance: Inheritance, environment: Mapping[str, str]) -> None:
    """Become the supervisor that is installed now, as this one was started. Does not return.

    Args:
        inheritance: What is left to it.
        environment: The environment of the start.

    Raises:
        OSError: That is not possible.
    """
    # Over the exec they wait in the system.
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        variables = leave(inheritance)
        for number in _held:
            signal.pthread_kill(threading.get_ident(), number)
        os.execve(sys.executable, sys.orig_argv, {**environment, **variables})  # noqa: S606 - as it was started
    except OSError:
        release_signals()
        raise
