"""A worker's own log: plain lines on stderr, which the supervisor passes on."""

from __future__ import annotations

import sys

import structlog


def set_up_logging() -> None:
    """Print what a worker logs, one line an event, without colours."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y/%m/%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=False,
                pad_event_to=0,
                pad_level=False,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
