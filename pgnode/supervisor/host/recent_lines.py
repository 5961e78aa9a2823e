"""The last lines of the log, for an operator who asks: of the core, and of the node's own processes. Pure.

Each of both has room of its own, so that a talkative core does not push out what the node said. Those of the core are in the
ring, and are made from its blocks only where somebody asks. A restart in place hands them on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgnode.os_support.log_levels import known_level, level_of_line
from pgnode.os_support.log_lines import Entry
from pgnode.supervisor.host.log_ring import Block, LogRing

#: Lines of the core that are told, and of the node that are kept; and characters of each.
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
        ring: Has the lines of the core.
        name: Tells these lines from those of another supervisor.
        left: What the supervisor before handed on.
        kept: Lines of either kind.
        characters: Characters of either kind.
    """

    def __init__(
        self,
        ring: LogRing,
        name: str,
        left: Mapping[str, Any] | None = None,
        *,
        kept: int = KEPT,
        characters: int = KEPT_CHARACTERS,
    ) -> None:
        self.ring = ring
        self.name = name
        self._kept, self._characters = kept, characters
        self._node = _Room(kept, characters)
        if left:
            self._take(left)

    def __repr__(self) -> str:
        return f"RecentLines({self.ring!r}, {len(self._node.lines)} of the node)"

    def node(self, entry: Entry) -> None:
        """Keep what one of the node's processes says, each line of a traceback as one of its own."""
        level = known_level(entry.level)
        for text in (entry.summary, *(entry.traceback.split("\n") if entry.traceback else ())):
            self._node.put(LogLine(self.ring.take_number(), entry.at, entry.process, entry.pid, level, text))

    def after(self, number: int) -> list[LogLine]:
        """Return what came after a line, in order.

        Args:
            number: The line's; 0 for all that are kept.

        Returns:
            The lines.
        """
        core = self._of_core(number, self._kept, self._characters)
        own = [line for line in self._node.lines if line.number > number]
        return sorted([*core, *own], key=lambda line: line.number)

    def _of_core(self, number: int, most: int, characters: int) -> list[LogLine]:
        """Return what the core said after a line, its last lines first."""
        found: list[LogLine] = []
        for line in _newest_first(self.ring):
            characters -= len(line.text)
            if line.number <= number or len(found) == most or characters < 0:
                break
            found.append(line)
        return found

    def left(self) -> dict[str, Any]:
        """Return what the next supervisor of this process is handed."""
        own = _Room(HANDED_ON, HANDED_ON_CHARACTERS)
        for line in self._node.lines:
            own.put(line)
        lines = sorted([*self._of_core(0, HANDED_ON, HANDED_ON_CHARACTERS), *own.lines], key=lambda line: line.number)
        shown = [block for block in self.ring.oldest_first() if not block.of_core][-HANDED_ON:]
        return {
            "name": self.name,
            "number": self.ring.next_number - 1,
            "lines": [line.encode() for line in lines],
            # What viewers see of the node.
            "shown": [[block.number, round(block.at, 3), block.raw.decode(errors="replace")] for block in shown],
        }

    def _take(self, left: Mapping[str, Any]) -> None:
        """Take what another supervisor handed on, perhaps of another version: what is odd is left out."""
        try:
            lines = [LogLine.decode(value) for value in left["lines"]]
            shown = [(int(number), float(at), str(text)) for number, at, text in left.get("shown", ())]
            self.name, last = str(left["name"]), int(left["number"])
        except (KeyError, TypeError, ValueError):
            return
        for line in lines:
            if line.source != CORE:
                self._node.put(line)
        of_core = [(line.number, line.at, line.text) for line in lines if line.source == CORE]
        marked = [(*kept, True) for kept in of_core] + [(*kept, False) for kept in shown]
        for number, at, text, from_core in sorted(marked):
            self.ring.skip_to(number)
            self.ring.put(text.encode(errors="replace"), at, 1, of_core=from_core)
        self.ring.skip_to(last + 1)


def _newest_first(ring: LogRing) -> Iterator[LogLine]:
    for block in ring.newest_first():
        if block.of_core:
            yield from reversed(_lines_of(block))


def _lines_of(block: Block) -> list[LogLine]:
    return [
        LogLine(number, block.at, CORE, 0, "", raw.decode(errors="replace"))
        for number, raw in enumerate(block.lines(), block.number)
    ]
