"""The node's own log: on stderr, and the same lines for the viewers of the log stream. Lines of its processes come here, too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from pgnode.os_support import log_setup
from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import PROCESS, form_of, is_journal
from pgnode.supervisor.host.log_level import LogLevel
from pgnode.supervisor.host.node_log import NodeLog

if TYPE_CHECKING:
    from pgnode.settings import Settings

_WARNINGS = frozenset({"warning", "error", "critical"})

#: What the supervisor is called in the log.
NAME = "supervisor"


def first_level(settings: Settings) -> str:
    """Return from which level on the node's own lines are printed after a start."""
    return settings.log_level or ("debug" if settings.debug else "info")


def begin_logging(settings: Settings, environment: Mapping[str, str]) -> None:
    """Log to stderr before there is anybody else to tell.

    Args:
        settings: They say in which form, and from which level on.
        environment: The environment of the start, which says where stderr leads.
    """
    PROCESS.take_form(form_of(settings.log_format, environment), journal=is_journal(environment))
    PROCESS.name_process(NAME)
    level = LogLevel(first_level(settings), time.time)
    log_setup.set_up(PROCESS, shows=level.shows, for_good=False)


def is_for_programs() -> bool:
    """Return whether programs read what this process prints, or keep it: nothing is put there that opens anything."""
    return PROCESS.journal or PROCESS.form == "json"


def told_in_log(level: str, sentence: str) -> bool:
    """Say a sentence for the operator in the log, where that is not for people at a terminal.

    Args:
        level: Its level.
        sentence: The sentence.

    Returns:
        Whether it was said; else it is for the terminal.
    """
    wanted = is_for_programs()
    if wanted:
        PROCESS.write(PROCESS.entry(level, sentence, {}))
    return wanted


def set_up_logging(node_log: NodeLog, also: Callable[[str], None] | None = None) -> None:
    """Log to stderr, in the form in which it was begun.

    Args:
        node_log: Says which levels are logged, and keeps what is.
        also: Called with each line of the supervisor, as text.
    """

    def tell(entry: Entry) -> None:
        node_log.lines.node(entry)
        if also is not None:
            # As the core writes the time.
            also(f"{datetime.fromtimestamp(entry.at):%Y/%m/%d %H:%M:%S} [pgnode] [{entry.level}] {entry.summary}")  # noqa: DTZ006
        if entry.level in _WARNINGS:
            node_log.warnings.note(entry.level, entry.summary)

    PROCESS.name_process(NAME)
    log_setup.set_up(PROCESS, shows=node_log.level.shows, also=tell, audited=node_log.audit.note)
