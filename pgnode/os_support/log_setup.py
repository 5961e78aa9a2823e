"""Sets up how a process of the node logs: structlog, the standard library's logging, and errors that nobody expected."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, NoReturn

import structlog

from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import LogOutput, entry_of, take_standard_logging
from pgnode.os_support.log_text import bound_values


def set_up(
    output: LogOutput, *, debug: bool = True, also: Callable[[Entry], None] | None = None, for_good: bool = True
) -> None:
    """Log to an output.

    Args:
        output: Where it goes.
        debug: Log details, too.
        also: Called with each entry of this process.
        for_good: Whether it is not set up again.
    """

    def write(_logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        entry = entry_of(output, "error" if method == "exception" else method, event)
        output.write(entry)
        if also is not None:
            also(entry)
        raise structlog.DropEvent

    structlog.configure(
        processors=[bound_values, write],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=for_good,
    )
    take_standard_logging(output, also)
