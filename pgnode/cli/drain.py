"""``pgnode drain``: no new connections of users, while those there are go on; and the wait until nobody is left."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgnode.cli.asking import ask_node, seconds_from
from pgnode.cli.facts import is_stopped
from pgnode.cli.operator_audit import note
from pgnode.cli.output import say
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, Target, find_target
from pgnode.cli.texts import count, duration
from pgnode.cli.verdict import NOT_WELL, WELL
from pgnode.errors import ArgumentError, NotAnsweringError
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.report import DrainReport, decode

#: Seconds that the supervisor may take: a start that is under way comes first.
ORDER_SECONDS: Final = 130.0

#: Seconds between two looks while nobody is to be left.
POLL_INTERVAL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How an operator's terminal waits; tests replace it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """How far a drain is."""

    drain: DrainReport
    #: Open connections by inbound.
    connections: dict[str, int]
    #: There was a drain, and it was ended by this question.
    ended: bool

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> DrainProgress:
        """Read a supervisor's answer."""
        counted = answer.get("connections")
        connections = counted if isinstance(counted, dict) else {}
        return cls(decode(DrainReport, answer.get("drain")), connections, answer.get("ended") is True)

    @property
    def open(self) -> int:
        """How many connections are open."""
        return sum(self.connections.values())


def drain_node(
    named: Named,
    *,
    cancel: bool = False,
    for_text: str | None = None,
    hold: bool = False,
    wait_text: str | None = None,
    json_wanted: bool = False,
    timing: Timing = Timing(),
) -> int:
    """Drain a node, or end that.

    Args:
        named: What the operator said about which node is meant.
        cancel: End it.
        for_text: For how long, such as 10m; None: until it is ended.
        hold: Go on over starts by the panel.
        wait_text: How long to wait for the last connection, such as 10m; None: not at all.
        json_wanted: Print JSON.
        timing: How to wait.

    Returns:
        The exit code: 0, or 4 where the core does not do it yet, or connections are open when the wait is over.

    Raises:
        ArgumentError: The options do not go together.
        OperatorError: The node does not run, or does not answer.
    """
    seconds, wait_seconds = seconds_from("--for", for_text), seconds_from("--wait", wait_text)
    if cancel and (seconds is not None or wait_seconds is not None or hold):
        raise ArgumentError("--cancel ends a drain: --for, --hold and --wait do not go with it")
    target = find_target(named)
    if target.why and not json_wanted:
        say(target.why)
    if target.pid is not None and is_stopped(target.pid):
        raise NotAnsweringError(f"the supervisor (pid {target.pid}) was stopped by a signal (SIGSTOP): kill -CONT it")
    asked = {"do": "cancel"} if cancel else {"do": "begin", "seconds": seconds, "hold": hold}
    progress = DrainProgress.read(ask_node(target, messages.DRAIN, asked, seconds=ORDER_SECONDS))
    note(target.settings, "node", "drain ended" if cancel else "drain begun", {} if cancel else {"seconds": seconds})
    if not json_wanted:
        for sentence in cancelled(progress) if cancel else begun(progress):
            say(sentence)
    waited = None
    if wait_seconds is not None:
        wait = _Wait(named, target, progress, timing, None if json_wanted else say)
        waited = wait.until_nobody_is_left(wait_seconds)
        progress = wait.progress
        if not json_wanted:
            say(wait.end_sentence(waited))
    if json_wanted:
        Screen().json(as_json(progress, waited))
    return NOT_WELL if progress.drain.error or waited is False else WELL


def as_json(progress: DrainProgress, waited: bool | None) -> dict[str, Any]:
    """Return all of it for programs; ``drained`` is None where nobody waited for the last connection."""
    return {
        "drain": progress.drain.encode(),
        "connections": progress.connections,
        "open": progress.open,
        "drained": waited,
    }


def begun(progress: DrainProgress) -> Iterator[str]:
    """Say what a drain does.

    Args:
        progress: How far it is.

    Yields:
        Sentences.
    """
    drain = progress.drain
    yield "the node is being drained: /readyz says 503, and those who are connected go on"
    if drain.away:
        yield f"no new connections on {', '.join(drain.away)}"
    yield from drain.stays
    if drain.error:
        yield f"the core has not done it all, and is asked again: {drain.error}"
    ends = ["pgnode drain --cancel", *([] if drain.hold else ["a start by the panel"])]
    if drain.until is not None:
        ends.insert(0, f"its time at {datetime.datetime.fromtimestamp(drain.until).astimezone():%Y-%m-%d %H:%M:%S}")
    yield f"it ends by {' or '.join(ends)}"
    yield still_open(progress)


def cancelled(progress: DrainProgress) -> Iterator[str]:
    """Say what became of a drain that was ended.

    Args:
        progress: How far it is.

    Yields:
        Sentences.
    """
    if progress.drain.error and progress.drain.away:
        yield f"not back yet, and tried again: {', '.join(progress.drain.away)}: {progress.drain.error}"
    elif progress.ended:
        yield "the node is no longer drained: all inbounds listen again, with all users as they are desired now"
    else:
        yield "the node was not being drained"


def still_open(progress: DrainProgress) -> str:
    """Say how many connections are open, and where."""
    if not progress.open:
        return "no connection over TCP is open"
    by_inbound = ", ".join(f"{name} {number:,}" for name, number in sorted(progress.connections.items()))
    return f"{count(progress.open, 'connection')} open over TCP: {by_inbound}"


class _Wait:
    """Waits until nobody is left, and says how far that is."""

    def __init__(
        self, named: Named, target: Target, progress: DrainProgress, timing: Timing, tell: Callable[[str], None] | None
    ) -> None:
        self._named = named
        self._target = target
        self.progress = progress
        self._timing = timing
        self._tell = tell
        self._began = timing.now()

    def until_nobody_is_left(self, seconds: float) -> bool:
        """Wait, so many seconds at most; return whether nobody is left. Raises OperatorError."""
        told = self.progress.open
        while self.progress.open and self.progress.drain.draining:
            left = self._began + seconds - self._timing.now()
            if left <= 0:
                break
            self._timing.sleep(min(POLL_INTERVAL_SECONDS, left))
            self._look()
            if self.progress.open != told and self._tell is not None:
                told = self.progress.open
                self._tell(still_open(self.progress))
        return not self.progress.open and self.progress.drain.draining

    def _look(self) -> None:
        """Look again; a supervisor that restarts, or is busy, is asked once more later. Raises OperatorError."""
        try:
            self.progress = DrainProgress.read(ask_node(self._target, messages.DRAIN, {"do": "look"}))
        except NotAnsweringError:
            # One that has ended is found to have.
            self._target = find_target(self._named)
            if self._target.pid is None or is_stopped(self._target.pid):
                raise

    def end_sentence(self, nobody_is_left: bool) -> str:
        """Say how the wait ended."""
        after = duration(self._timing.now() - self._began)
        if nobody_is_left:
            return f"drained after {after}: a restart or an end of the node cuts no connection over TCP now"
        if not self.progress.drain.draining:
            return f"the drain was ended after {after}, by its time, a start by the panel or an operator"
        return f"after {after} the node is still being drained: {still_open(self.progress)}"
