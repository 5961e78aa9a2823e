"""The last lines of the log, for an operator who asks: of the core, and of the node's own processes. Pure.

Each of both has room of its own, so that a talkative core does not push out what the node said. A restart in place hands them on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgnode.os_support.log_levels import known_level, level_of_line
from pgnode.os_support.log_lines import Entry

#: Lines that are kept of the core, and of the node; and characters of each.
KEPT = 2_000
KEPT_CHARACTERS = 512 * 1024

#: Lines and characters of each that a restart in place hands on.
HANDED_ON = 500
HANDED_ON_CHARACTERS = 128 * 1024

#: What a line of the core is from.
CORE: Final = "core"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line."""

    number: int
    #: When it came, Unix seconds.
    at: float
    #: "core", or the process that says it.
    source: str
    #: Its pid; 0 for the core.
    pid: int
    #: "" stands for what the line says.
    level: str
    text: str

    def encode(self) -> list[Any]:
        """Return it as JSON knows it."""
        return [
            self.number,
            round(self.at, 3),
            self.source,
            self.pid,
            self.level or level_of_line(self.text),
            self.text,
        ]

    @classmethod
    def decode(cls, value: Any) -> LogLine:
        """Read what :meth:`encode` made. Raises ValueError, TypeError."""
        number, at, source, pid, level, text = value
        return cls(int(number), float(at), str(source), int(pid), known_level(str(level)), str(text))


class _Room:
    """Lines of one kind."""

    def __init__(self, lines: int, characters: int) -> None:
        self._lines_max, self._characters_max = lines, characters
        self.lines: deque[LogLine] = deque()
        self._characters = 0

    def put(self, line: LogLine) -> None:
        self.lines.append(line)
        self._characters += len(line.text)
        while len(self.lines) > self._lines_max or self._characters > self._characters_max:
            self._characters -= len(self.lines.popleft().text)


class RecentLines:
    """Belongs to the supervisor's loop.

    Args:
        now: Says the time, Unix seconds.
        name: Tells these lines from those of another supervisor.
        left: What the supervisor before handed on.
        kept: Lines of either kind.
        characters: Characters of either kind.
    """

    def __init__(
        self,
        now: Callable[[], float],
        name: str,
        left: Mapping[str, Any] | None = None,
        *,
        kept: int = KEPT,
        characters: int = KEPT_CHARACTERS,
    ) -> None:
        self._now = now
        self.name = name
        self._core, self._node = _Room(kept, characters), _Room(kept, characters)
        self._number = 0
        if left:
            self._take(left)

    def __repr__(self) -> str:
        return f"RecentLines({len(self._core.lines)} of the core, {len(self._node.lines)} of the node)"

    def core(self, text: str) -> None:
        """Keep a line of the core."""
        self._number += 1
        self._core.put(LogLine(self._number, self._now(), CORE, 0, "", text))

    def node(self, entry: Entry) -> None:
        """Keep what one of the node's processes says, each line of a traceback as one of its own."""
        level = known_level(entry.level)
        for text in (entry.summary, *(entry.traceback.split("\n") if entry.traceback else ())):
            self._number += 1
            self._node.put(LogLine(self._number, entry.at, entry.process, entry.pid, level, text))

    def after(self, number: int) -> list[LogLine]:
        """Return what came after a line, in order.

        Args:
            number: The line's; 0 for all that are kept.

        Returns:
            The lines.
        """
        found = [line for room in (self._core, self._node) for line in room.lines if line.number > number]
        return sorted(found, key=lambda line: line.number)

    def left(self) -> dict[str, Any]:
        """Return what the next supervisor of this process is handed."""
        kept = RecentLines(self._now, self.name, kept=HANDED_ON, characters=HANDED_ON_CHARACTERS)
        for line in self.after(0):
            (kept._core if line.source == CORE else kept._node).put(line)
        return {"name": self.name, "number": self._number, "lines": [line.encode() for line in kept.after(0)]}

    def _take(self, left: Mapping[str, Any]) -> None:
        """Take what another supervisor handed on, perhaps of another version: what is odd is left out."""
        try:
            lines = [LogLine.decode(value) for value in left["lines"]]
            self.name, self._number = str(left["name"]), int(left["number"])
        except (KeyError, TypeError, ValueError):
            return
        for line in lines:
            (self._core if line.source == CORE else self._node).put(line)
