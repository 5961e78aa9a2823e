"""The core's ``log``: what of a change the node can do by itself, for its own part of the way that lines go. Pure.

The core prints to the node, which passes on what is wanted. So fewer lines are the node's work; lines that the core does not
print are to be had of a new core only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Levels of the core, the most talkative first.
LEVELS: Final = ("debug", "info", "warning", "error", "none")
_DEFAULT_LEVEL: Final = "warning"
#: The level of one of the core's own lines; lines about connections have none. Some have a number in front of the text.
_LINE_LEVEL = re.compile(rb"[^\[]{0,40}\[(Debug|Info|Warning|Error)\]")
#: The core prints the id of whom it does not let in.
ID_MARK: Final = b"user id: "
_ID = re.compile(rb"(user id: )[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}")
_DATED = re.compile(rb"\d{4}/\d\d/\d\d ").match
#: How a level stands in a line of the core, the most talkative first.
_MARKS: Final = (b"[Debug]", b"[Info]", b"[Warning]", b"[Error]")
#: The beginning of a line without a date, in a block.
_UNDATED = re.compile(rb"(?:\A|\n)(?!\d{4}/\d\d/\d\d )").search


def is_access_line(line: bytes) -> bool:
    """Whether a line of the core's is about a connection or an answer of DNS: it has a time, and no level.

    An address of IPv6 in it begins with a bracket, too. What has no time is no log line, but a panic, say.
    """
    return _LINE_LEVEL.match(line) is None and _DATED(line) is not None


def access_lines(block: bytes) -> tuple[bytes, bytes]:
    """Tell lines about connections from others.

    Args:
        block: Lines, with a line feed between two.

    Returns:
        Those about connections, and the others, in the same form.
    """
    if not any(mark in block for mark in _MARKS) and _UNDATED(block) is None:
        return block, b""
    access: list[bytes] = []
    others: list[bytes] = []
    for line in block.split(b"\n"):
        (access if is_access_line(line) else others).append(line)
    return b"\n".join(access), b"\n".join(others)


def without_ids(line: bytes) -> bytes:
    """Hide users' ids in a line of the core's: who is not let in here may be let in elsewhere, or tomorrow."""
    return _ID.sub(rb"\1(hidden)", line)


@dataclass(frozen=True, slots=True)
class LogSection:
    """What a ``log`` section asks for."""

    level: int = LEVELS.index(_DEFAULT_LEVEL)
    #: Lines about connections.
    access: bool = True
    #: The core's own lines.
    errors: bool = True
    #: Whatever else it holds, as text; the node cannot do it.
    rest: str = "{}"

    @property
    def tells_ends(self) -> bool:
        """Whether lines about connections say, in full, where these come from."""
        return self.access and "maskaddress" not in self.rest.lower()

    @classmethod
    def of(cls, section: object) -> LogSection:
        """Read the ``log`` of a rewritten config; what is none is taken as the core takes it: without lines about connections."""
        given: Mapping[str, Any] = section if isinstance(section, dict) else {"access": "none"}
        name = str(given.get("loglevel") or _DEFAULT_LEVEL).lower()
        level = LEVELS.index(name) if name in LEVELS else LEVELS.index(_DEFAULT_LEVEL)
        rest = {key: value for key, value in given.items() if key not in ("access", "error", "loglevel")}
        return cls(
            level,
            given.get("access") != "none" and name != "none",
            given.get("error") != "none",
            repr(sorted(rest.items())) if rest else "{}",
        )

    def waits(self, running: LogSection) -> str:
        """Say what of this only a new core can do, where the running one has ``running``; "" for nothing."""
        waiting = []
        if self.level < running.level:
            waiting.append(f"level {LEVELS[self.level]} (the core runs with {LEVELS[running.level]})")
        if self.access and not running.access:
            waiting.append("lines about connections")
        if self.errors and not running.errors:
            waiting.append("lines of the core itself")
        if self.rest != running.rest:
            waiting.append("other log options")
        return ", ".join(waiting)

    def sieve(self, block: bytes) -> bytes:
        """Leave out what is not asked for.

        Args:
            block: Lines that the core printed, with a line feed between two.

        Returns:
            Those that are asked for, in the same form.
        """
        if self.access and not any(mark in block for mark in (_MARKS[: self.level] if self.errors else _MARKS)):
            return block
        return b"\n".join([line for line in block.split(b"\n") if self.wants(line)])

    def wants(self, line: bytes) -> bool:
        """Whether a line that the core printed is asked for."""
        found = _LINE_LEVEL.match(line)
        if found is None:
            return self.access or not is_access_line(line)
        return self.errors and LEVELS.index(found[1].decode().lower()) >= self.level
