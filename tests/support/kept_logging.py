"""How this process logs, kept and put back: a test that sets up a node's log must not change that of the next one."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator

import structlog

from pgnode.os_support.log_output import PROCESS


@contextlib.contextmanager
def kept_logging() -> Iterator[None]:
    """Put everything back at the end."""
    configured, configuration = structlog.is_configured(), structlog.get_config()
    form, journal, process = PROCESS.form, PROCESS.journal, PROCESS.process
    shown_from = PROCESS.shown_from
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    handlers = list(logging.getLogger().handlers)
    try:
        yield
    finally:
        structlog.reset_defaults()
        if configured:
            structlog.configure(**configuration)
        PROCESS.take_form(form, journal=journal)
        PROCESS.name_process(process)
        PROCESS.show_from(shown_from)
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        logging.getLogger().handlers[:] = handlers
        logging.captureWarnings(False)
