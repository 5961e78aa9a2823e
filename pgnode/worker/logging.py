"""A worker's own log: plain lines on stderr, which the supervisor passes on."""

from __future__ import annotations

import sys

import structlog

from pgnode.os_support import streams
from pgnode.os_support.log_text import bound_values, print_traceback


def set_up_logging() -> None:
    """Print what a worker logs, one line an event, without colours. A supervisor that does not read them holds nobody up."""
    streams.make_safe()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y/%m/%d %H:%M:%S", utc=False),
            bound_values,
            structlog.dev.ConsoleRenderer(
                colors=False,
                pad_event_to=0,
                pad_level=False,
                exception_formatter=print_traceback,
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
