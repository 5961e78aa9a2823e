"""A worker's own log. The supervisor reads its lines and prints them; a worker that was started by hand prints them itself."""

from __future__ import annotations

import os

from pgnode.os_support import log_setup, streams
from pgnode.os_support.log_output import LINES_VARIABLE, PROCESS, is_journal


def set_up_logging(process: str) -> None:
    """Print what a worker logs. A supervisor that does not read it holds nobody up.

    Args:
        process: What the process is called in the log: "gunicorn", "rest", "grpc".
    """
    streams.make_safe()
    by_supervisor = LINES_VARIABLE in os.environ
    # The settings are not read yet.
    as_json = by_supervisor or os.environ.get("LOG_FORMAT", "").strip().lower() == "json"
    PROCESS.take_form("json" if as_json else "text", journal=not by_supervisor and is_journal(os.environ))
    PROCESS.name_process(process)
    log_setup.set_up(PROCESS, for_good=False)


def name_process(process: str) -> None:
    """Say what this process is called in the log from now on: one that was forked is another one."""
    PROCESS.name_process(process)
