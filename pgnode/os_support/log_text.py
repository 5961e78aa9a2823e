"""Text as it may stand in a log or on a terminal: without what would make another line, move the cursor, or turn the text around.

Whatever is printed of names from outside goes through here: the log, the operator's commands, the banner, and the core's lines.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Final, TextIO

#: Characters of one value, or of the message.
VALUE_MAX: Final = 1000

#: Characters of a traceback: its first and its last ones.
TRACEBACK_HEAD, TRACEBACK_TAIL = 2_000, 6_000

#: Characters of one line that a command prints, at most.
LINE_MAX: Final = 16 * 1024

#: What a terminal obeys, in UTF-8: control characters but tabs and ends of lines, and marks that turn the direction of text.
_OBEYED: Final = re.compile(
    rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)
_UNPRINTABLE: Final = re.compile(r"[^ -~\n]")

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def printable(text: str, limit: int = VALUE_MAX) -> str:
    """Return text that is safe to print on one line.

    Args:
        text: Any text, also with control characters and lone surrogates.
        limit: Most characters of it that are kept.

    Returns:
        The text; what is no printable character stands as its escape, and what is too long is cut.
    """
    kept = text if len(text) <= limit else text[:limit]
    if not kept.isprintable():
        kept = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in kept)
    return kept if len(text) <= limit else f"{kept}… ({len(text):,} characters)"


def printable_lines(text: str, limit: int = LINE_MAX) -> str:
    """Return text that is safe to print, with its ends of lines.

    Args:
        text: Any text.
        limit: Most characters of each line that are kept.

    Returns:
        The text, each line as :func:`printable` makes it.
    """
    return (
        text
        if text.isprintable() and len(text) <= limit
        else "\n".join(printable(one, limit) for one in text.split("\n"))
    )


def printable_json(text: str) -> str:
    """Make JSON safe to print: what is no printable character is written as JSON escapes it.

    Args:
        text: JSON, whose strings may hold any character.

    Returns:
        JSON that says the same.
    """
    return _UNPRINTABLE.sub(_json_escape, text)


def _json_escape(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def obeyed_by_terminals(data: bytes) -> bool:
    """Return whether there is anything in these bytes that :func:`printable_bytes` would change."""
    return _OBEYED.search(data) is not None


def printable_bytes(data: bytes) -> bytes:
    """Write escapes in place of what a terminal obeys.

    Args:
        data: What another program printed, be it UTF-8 or not.

    Returns:
        The bytes; all else is as it was.
    """
    return _OBEYED.sub(lambda match: match[0].decode().encode("unicode_escape"), data)


def bound_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make the values of a log event printable and short; a processor of structlog's."""
    for name, value in event.items():
        if name == "exc_info" or isinstance(value, (bool, int, float)) or value is None:
            continue
        text = value if isinstance(value, str) else repr(value)
        if len(text) > VALUE_MAX or not text.isprintable():
            event[name] = printable(text)
    return event


def print_traceback(stream: TextIO, info: ExceptionInfo) -> None:
    """Print a traceback without local variables, which would show keys and configs; an exception formatter of structlog's.

    Args:
        stream: Where it goes.
        info: The exception.
    """
    text = "".join(traceback.format_exception(*info)).rstrip("\n")
    if len(text) > TRACEBACK_HEAD + TRACEBACK_TAIL:
        left_out = len(text) - TRACEBACK_HEAD - TRACEBACK_TAIL
        text = f"{text[:TRACEBACK_HEAD]}\n… {left_out:,} characters left out …\n{text[-TRACEBACK_TAIL:]}"
    stream.write("\n" + "\n".join(printable(line.expandtabs(), TRACEBACK_TAIL) for line in text.split("\n")))
