"""A worker's own log. The supervisor reads its lines and prints them; a worker that was started by hand prints them itself."""

from __future__ import annotations

import os
from typing import Literal

from pgnode.os_support import log_setup, streams
from pgnode.os_support.log_levels import rank
from pgnode.os_support.log_lines import LogForm
from pgnode.os_support.log_output import LINES_VARIABLE, PROCESS, form_of, is_journal


def set_up_logging(process: str) -> None:
    """Print what a worker logs. A supervisor that does not read it holds nobody up.

    Args:
        process: What the process is called in the log: "gunicorn", "rest", "grpc".
    """
    streams.make_safe()
    by_supervisor = LINES_VARIABLE in os.environ
    # The settings are not read yet.
    form = "json" if by_supervisor else form_of(_wanted_form(), os.environ)
    PROCESS.take_form(form, journal=not by_supervisor and is_journal(os.environ))
    PROCESS.name_process(process)
    lowest = "debug" if by_supervisor else os.environ.get("LOG_LEVEL", "").strip() or "debug"
    PROCESS.show_from(lowest)
    log_setup.set_up(PROCESS, shows=lambda level: rank(level) >= rank(lowest), for_good=False)


def _wanted_form() -> LogForm | Literal["auto"]:
    match os.environ.get("LOG_FORMAT", "").strip():
        case "json" | "auto" as form:
            return form
        case _:
            return "text"


def name_process(process: str) -> None:
    """Say what this process is called in the log from now on: one that was forked is another one."""
    PROCESS.name_process(process)
