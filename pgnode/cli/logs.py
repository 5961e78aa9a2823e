"""``pgnode logs``: the last lines of the core and of the node's processes, and those that come.

The supervisor has them in memory. Where it does not answer, what the bus has is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import NODE_LOG_MAX, Keys
from pgnode.bus.log_stream import node_lines
from pgnode.cli.asking import seconds_from
from pgnode.cli.log_view import WantedLines, as_object, as_text, lines_from_bus, lines_of
from pgnode.cli.output import say
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, Target, find_target
from pgnode.cli.verdict import NOT_WELL
from pgnode.errors import NotAnsweringError, NotRunningError, OperatorError, SettingsError
from pgnode.settings import Settings
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ASK_SECONDS, DeclinedError, NotAnsweredError, ask
from pgnode.supervisor.host.node_lock import running_pid
from pgnode.supervisor.host.recent_lines import LogLine

#: Lines that are shown where nobody says how many.
LINES = 100

#: Seconds between two looks for what is new.
FOLLOW_SECONDS = 0.5

#: Times that the supervisor is silent in a row before that is told: for a moment it is while it restarts in place.
SILENT_TIMES = 3

#: Seconds that the bus has to answer.
BUS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class HowShown:
    """How lines are shown."""

    #: Lines that are there already, at most; 0 for all.
    count: int = LINES
    follow: bool = False
    json_wanted: bool = False


def show_logs(
    named: Named,
    wanted: WantedLines,
    shown: HowShown = HowShown(),
    *,
    ask_seconds: float = ASK_SECONDS,
    follow_seconds: float = FOLLOW_SECONDS,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Print lines of the log.

    Args:
        named: What the operator said about which node is meant.
        wanted: Which lines.
        shown: How.
        ask_seconds: Seconds that the supervisor has to answer.
        follow_seconds: Seconds between two looks for what is new.
        pause: Waits.

    Returns:
        The exit code: 0, or 4 where only the bus has lines.

    Raises:
        OperatorError: There is nothing to be shown; the text says why.
    """
    target = find_target(named)
    if target.why:
        say(target.why, error=True)
    printer = _Printer(wanted, json_wanted=shown.json_wanted)
    source = _Supervisor(target.settings, ask_seconds)
    code = 0
    with contextlib.suppress(KeyboardInterrupt), _pipe_may_close():
        try:
            if target.pid is None:
                raise _Silent("")
            first = source.news()
        except _Silent as silent:
            code = _show_from_bus(target, printer, shown, str(silent))
            # What comes from the supervisor later is not shown twice.
            printer.wanted = replace(wanted, since=time.time())
        else:
            printer.show(first, last=shown.count)
        if shown.follow:
            _follow(target, source, printer, follow_seconds, pause)
    return code


def begin_logs(
    named: Named,
    *,
    core: bool | None,
    level: str,
    since: str | None,
    text: str,
    count: int,
    follow: bool,
    json_wanted: bool,
) -> int:
    """Print lines of the log, as the options of the command line say.

    Args:
        named: What the operator said about which node is meant.
        core: The core's alone, or the node's alone; None for both.
        level: The least grave level.
        since: How old they may be, such as 10m; None for any age.
        text: What has to stand in them.
        count: The last ones; 0 for all.
        follow: Go on with what comes.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: There is nothing to be shown; the text says why.
    """
    seconds = seconds_from("--since", since)
    wanted = WantedLines(core, level, None if seconds is None else time.time() - seconds, text)
    return show_logs(named, wanted, HowShown(count, follow, json_wanted))


class _Silent(Exception):
    """The supervisor does not answer; the text says why."""


class _Supervisor:
    """Who has the lines."""

    def __init__(self, settings: Settings, seconds: float) -> None:
        self._run_dir, self._seconds = settings.run_dir, seconds
        self._name, self._last = "", 0

    def news(self) -> list[LogLine]:
        """Return what came since the last time. Raises OperatorError, _Silent."""
        try:
            answer = ask(self._run_dir, messages.LOGS, {"name": self._name, "after": self._last}, seconds=self._seconds)
        except DeclinedError as error:
            raise OperatorError(f"{error}: pgnode restart makes the node the version that is installed") from None
        except NotAnsweredError as error:
            raise _Silent(str(error)) from None
        lines = lines_of(answer)
        name = str(answer.get("name"))
        if name != self._name:
            self._name, self._last = name, 0
        self._last = max([self._last, *(line.number for line in lines)])
        return lines


class _Printer:
    def __init__(self, wanted: WantedLines, *, json_wanted: bool) -> None:
        self.wanted = wanted
        self._json = json_wanted
        self._screen = Screen()

    def show(self, lines: list[LogLine], last: int = 0) -> int:
        """Print those that are wanted, at most ``last`` of them; returns how many."""
        found = [line for line in lines if self.wanted.has(line)][-last:]
        for line in found:
            if self._json:
                say(json.dumps(as_object(line)))
            else:
                self._screen.line(*as_text(line))
        sys.stdout.flush()
        return len(found)


def _follow(
    target: Target, source: _Supervisor, printer: _Printer, seconds: float, pause: Callable[[float], None]
) -> None:
    """Print what comes, until the node has ended. Raises OperatorError."""
    silent_times = 0
    while True:
        try:
            printer.show(source.news())
            silent_times = 0
        except _Silent as silent:
            if running_pid(target.settings) is None:
                raise NotRunningError("the node has ended") from None
            silent_times += 1
            if silent_times == SILENT_TIMES:
                say(f"the supervisor does not answer ({silent}): waiting for it", error=True)
        pause(seconds)


def _show_from_bus(target: Target, printer: _Printer, shown: HowShown, why: str) -> int:
    """Print what the bus has; returns the exit code. Raises OperatorError."""
    settings, pid = target.settings, target.pid
    lines = list(lines_from_bus(asyncio.run(_read_bus(settings))))
    count = printer.show(lines, last=shown.count)
    if pid is None:
        raise NotRunningError(_where_lines_are(settings, found=bool(count)))
    if not lines:
        raise NotAnsweringError(
            f"the supervisor (pid {pid}) does not answer: {why}; neither has the bus lines of the log"
        )
    say(
        f"the supervisor (pid {pid}) does not answer: {why}. These are the lines that the bus has: the supervisor's own",
        error=True,
    )
    return NOT_WELL


async def _read_bus(settings: Settings) -> list[bytes]:
    """Return the last lines that the supervisor said; none where the bus does not answer."""
    try:
        redis = connect(settings.bus_url, connections=1)
    except (SettingsError, OSError):
        return []
    try:
        async with asyncio.timeout(BUS_SECONDS):
            return await node_lines(redis, Keys(settings.bus_prefix), NODE_LOG_MAX)
    except BUS_ERRORS:
        return []
    finally:
        await redis.aclose()


def _where_lines_are(settings: Settings, *, found: bool) -> str:
    """Say where the lines of a node are that does not run."""
    said = f"no node runs with STATE_DIR={settings.state_dir}"
    if found:
        return f"{said}; these are the last lines that its Redis has"
    files: list[Any] = []
    with contextlib.suppress(OSError):
        files = sorted(path.name for path in settings.log_folder.iterdir() if path.is_file())
    logs = f"; log files of its core are in {settings.log_folder}: {', '.join(files[:5])}" if files else ""
    return f"{said}: what it printed is where its standard error went (a service's: journalctl -u pgnode){logs}"


@contextlib.contextmanager
def _pipe_may_close() -> Any:
    """Let whoever reads the output (``head``, say) stop reading."""
    try:
        yield
    except BrokenPipeError:
        # Nothing is written any more, also not at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
