"""Sets up how a process of the node logs: structlog, the standard library's logging, and errors that nobody expected."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, NoReturn

import structlog

from pgnode.os_support.audit import FIELD
from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import LogOutput, entry_of, take_standard_logging
from pgnode.os_support.log_text import bound_values


def set_up(
    output: LogOutput,
    *,
    shows: Callable[[str], bool] = lambda _level: True,
    also: Callable[[Entry], None] | None = None,
    audited: Callable[[Entry], None] | None = None,
    for_good: bool = True,
) -> None:
    """Log to an output.

    Args:
        output: Where it goes.
        shows: Says whether an event of a level is logged; asked for each, since that may change.
        also: Called with each entry of this process.
        audited: Called with each entry that belongs to the audit trail, whatever is logged, and with what is.
        for_good: Whether it is not set up again.
    """

    def choose(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if not shows(_level_of(method)) and (audited is None or FIELD not in event):
            raise structlog.DropEvent
        return event

    def write(_logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        entry = entry_of(output, _level_of(method), event)
        if audited is not None:
            audited(entry)
        if shows(entry.level):
            output.write(entry)
            if also is not None:
                also(entry)
        raise structlog.DropEvent

    structlog.configure(
        processors=[choose, bound_values, write],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=for_good,
    )
    take_standard_logging(output, also)


def _level_of(method: str) -> str:
    return "error" if method == "exception" else method
