"""Which lines of the log are shown, and how. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pgnode.cli.rows import Tone
from pgnode.os_support.log_levels import level_of_line, rank
from pgnode.supervisor.host.recent_lines import CORE, LogLine

#: Columns for where a line is from.
SOURCE_WIDTH = 17

_TONES = {"warning": Tone.WARN, "error": Tone.BAD}

#: What tells the node's own lines from those of the core.
_NODE_MARK = " [pgnode] "


@dataclass(frozen=True, slots=True)
class WantedLines:
    """What an operator wants to see."""

    #: Of the core alone, or of the node's own processes alone; None for both.
    core: bool | None = None
    #: The least grave level.
    level: str = "debug"
    #: Unix seconds; None for any time.
    since: float | None = None
    #: What has to stand in a line.
    text: str = ""

    def has(self, line: LogLine) -> bool:
        """Return whether a line is shown."""
        if self.core is not None and (line.source == CORE) is not self.core:
            return False
        if self.since is not None and 0 < line.at < self.since:
            return False
        return rank(line.level) >= rank(self.level) and self.text in line.text


def lines_of(answer: Any) -> list[LogLine]:
    """Read what the supervisor says; of another version's answer what can be read.

    Args:
        answer: Its answer.

    Returns:
        The lines, in order.
    """
    found: list[LogLine] = []
    values = answer.get("lines") if isinstance(answer, dict) else None
    for value in values if isinstance(values, list) else ():
        try:
            found.append(LogLine.decode(value))
        except (TypeError, ValueError):
            continue
    return found


def lines_from_bus(lines: Iterable[bytes]) -> Iterator[LogLine]:
    """Read the lines of the supervisor's own that the bus has.

    Args:
        lines: The lines, as viewers of the log see them.

    Yields:
        The same, as the supervisor has them in memory.
    """
    for number, raw in enumerate(lines, 1):
        text = raw.decode(errors="replace").replace(_NODE_MARK, " ", 1)
        level = level_of_line(text)
        yield LogLine(number, _time_of(text), "supervisor", 0, level, text[20:].removeprefix(f"[{level}] "))


def _time_of(text: str) -> float:
    """Return when a line was printed, as it says itself, Unix seconds; 0 where it does not."""
    try:
        return datetime.datetime.strptime(text[:19], "%Y/%m/%d %H:%M:%S").astimezone().timestamp()
    except ValueError:
        return 0.0


def as_text(line: LogLine) -> tuple[str, Tone]:
    """Return a line for people, and how it is to be shown."""
    tone = _TONES.get(line.level, Tone.PLAIN)
    source = f"{line.source}[{line.pid}]" if line.pid else line.source
    if line.source == CORE:
        # With a time of its own.
        return f"{source:<{SOURCE_WIDTH}} {line.text}", tone
    at = datetime.datetime.fromtimestamp(line.at).astimezone()
    return f"{source:<{SOURCE_WIDTH}} {at:%Y/%m/%d %H:%M:%S} [{line.level}] {line.text}", tone


def as_object(line: LogLine) -> dict[str, Any]:
    """Return a line for programs."""
    return {
        "at": line.at or None,
        "source": line.source,
        "pid": line.pid or None,
        "level": line.level,
        "text": line.text,
    }
