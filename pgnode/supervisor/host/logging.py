"""The node's own log: readable lines on stderr, and the same lines for the viewers of the log stream."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from pgnode.os_support.log_text import bound_values, print_traceback

_WARNINGS = frozenset({"warning", "error", "critical"})


def set_up_logging(
    debug: bool, also: Callable[[str], None] | None = None, warned: Callable[[str, str], None] | None = None
) -> None:
    """Log to stderr.

    Args:
        debug: Log details, too.
        also: Called with each line, without colours.
        warned: Called with level and text of each warning and error, without the time.
    """
    plain = _renderer(colors=False)
    shown = _renderer(colors=True) if sys.stderr.isatty() else plain

    def tee(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if also is not None:
            copy = {key: value for key, value in event.items() if key not in {"exc_info", "timestamp"}}
            also(f"{event.get('timestamp', '')} [pgnode] {plain(logger, method, copy)}")
        if warned is not None and event.get("level") in _WARNINGS:
            copy = {key: value for key, value in event.items() if key not in {"exc_info", "timestamp", "level"}}
            warned(str(event["level"]), plain(logger, method, copy))
        return event

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y/%m/%d %H:%M:%S", utc=False),
            bound_values,
            tee,
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _renderer(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=0, pad_level=False, exception_formatter=print_traceback
    )
