"""The one form of log lines, for all processes of the node: as text, or as one JSON object a line. Pure.

Processes that the supervisor keeps print JSON to it, whatever is wanted at the end; it reads each line as an :class:`Entry` and
prints that in the form that is wanted. What other programs print is read by what it looks like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final, Literal

from pgnode.os_support.log_text import VALUE_MAX, printable

#: The forms.
LogForm = Literal["text", "json"]

#: Priorities of the journal (sd-daemon(3)), by level.
PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}

#: Characters of the message of a line, at most.
MESSAGE_MAX: Final = 16 * 1024

#: Colours of a terminal, by level.
_COLOURS: Final = {
    "critical": "\x1b[31;1m",
    "error": "\x1b[31m",
    "warning": "\x1b[33m",
    "info": "\x1b[32m",
    "debug": "\x1b[2m",
}
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"

#: The beginning of every line that :func:`json_line` makes.
_JSON_START: Final = '{"time": "'

#: How Valkey begins a line (pid, role, date, level), and the gRPC library (level, date, file).
_VALKEY: Final = re.compile(r"\d+:[A-Z] \d\d? [A-Z][a-z]{2} \d{4} [\d:.]+ ([.\-*#]) ")
_GLOG: Final = re.compile(r"([IWEF])\d{4}(?:\d{4})? [\d:.]+\s+\d+ ")
_VALKEY_LEVELS: Final = {".": "debug", "-": "info", "*": "info", "#": "warning"}
_GLOG_LEVELS: Final = {"I": "info", "W": "warning", "E": "error", "F": "critical"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a process says."""

    #: Unix seconds.
    at: float
    level: str
    #: Which process says it: "supervisor", "gunicorn", "rest", "grpc", "valkey", "core".
    process: str
    pid: int
    message: str
    #: What belongs to it, by name: texts, numbers, booleans, None.
    fields: Mapping[str, Any] = field(default_factory=dict)
    #: Without local variables, which would show keys and configs.
    traceback: str = ""

    @property
    def summary(self) -> str:
        """The message and its fields."""
        return " ".join([self.message, *(f"{name}={_shown(self.fields[name])}" for name in sorted(self.fields))])


def text_lines(entry: Entry, *, timestamp: bool = True, colours: bool = False) -> Iterator[str]:
    """Write an entry as text.

    Args:
        entry: The entry.
        timestamp: Begin with the time, in this machine's zone.
        colours: Colour it, for a terminal.

    Yields:
        One line, and those of a traceback.
    """
    when = f"{datetime.fromtimestamp(entry.at):%Y/%m/%d %H:%M:%S} " if timestamp else ""  # noqa: DTZ006 - as operators' clocks
    level, said = entry.level, entry.summary
    if colours:
        level = f"{_COLOURS.get(level, '')}{level}{_PLAIN}"
        said = f"{_BOLD}{entry.message}{_PLAIN}{said[len(entry.message) :]}"
    yield f"{when}[{level}] {entry.process}[{entry.pid}]: {said}"
    if entry.traceback:
        yield from entry.traceback.split("\n")


def json_line(entry: Entry) -> str:
    """Write an entry as one line of JSON, of ASCII alone: a character set that lacks something would break it.

    Args:
        entry: The entry.

    Returns:
        An object with ``time`` (RFC 3339, UTC), ``level``, ``process``, ``pid``, ``message``, and where there are some,
        ``fields`` (an object) and ``traceback`` (a text).
    """
    found: dict[str, Any] = {
        "time": f"{datetime.fromtimestamp(entry.at, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
        "level": entry.level,
        "process": entry.process,
        "pid": entry.pid,
        "message": entry.message,
    }
    if entry.fields:
        found["fields"] = {name: _json_value(value) for name, value in entry.fields.items()}
    if entry.traceback:
        found["traceback"] = entry.traceback
    return json.dumps(found)


def prefixed(lines: Iterator[str], level: str) -> Iterator[str]:
    """Put the journal's prefix before each line.

    Args:
        lines: Lines of one entry.
        level: Its level.

    Yields:
        The lines.
    """
    prefix = f"<{PRIORITIES.get(level, PRIORITIES['info'])}>"
    for line in lines:
        yield prefix + line


def read_line(line: str, process: str, pid: int, now: float) -> Entry:
    """Read a line that a process printed.

    Args:
        line: The line: of :func:`json_line`, or of any program.
        process: The process, where the line does not say.
        pid: Its pid, where the line does not say.
        now: Unix seconds.

    Returns:
        What it says.
    """
    if line.startswith(_JSON_START):
        try:
            return _from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            pass
    message, level = printable(line, MESSAGE_MAX), "info"
    if (found := _VALKEY.match(line)) is not None:
        level, message = _VALKEY_LEVELS[found[1]], message[found.end() :]
    elif (found := _GLOG.match(line)) is not None:
        level, message = _GLOG_LEVELS[found[1]], message[found.end() :]
    elif line.startswith("Traceback "):
        level = "error"
    return Entry(now, level, process, pid, message)


def _from_json(found: Mapping[str, Any]) -> Entry:
    level, fields = found["level"], found.get("fields", {})
    if level not in PRIORITIES or not isinstance(fields, dict):
        raise ValueError(level)
    return Entry(
        at=datetime.fromisoformat(found["time"]).timestamp(),
        level=level,
        process=printable(str(found["process"]), VALUE_MAX),
        pid=int(found["pid"]),
        message=printable(str(found["message"]), MESSAGE_MAX),
        fields={
            printable(name): printable(value, MESSAGE_MAX) if isinstance(value, str) else _json_value(value)
            for name, value in fields.items()
        },
        traceback="\n".join(printable(line, MESSAGE_MAX) for line in str(found.get("traceback", "")).split("\n")),
    )


def _shown(value: Any) -> str:
    if not isinstance(value, str):
        return repr(value)
    return repr(value) if set(value) & set(" \t=\r\n\"'") else value


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value if isinstance(value, float) and isfinite(value) else str(value)
