"""Text as it may stand in a log: short, and without what would make another line or move a terminal's cursor."""

from __future__ import annotations

import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Final, TextIO

#: Characters of one value, or of the message.
VALUE_MAX: Final = 1000

#: Characters of a traceback: its first and its last ones.
TRACEBACK_HEAD, TRACEBACK_TAIL = 2_000, 6_000

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
