"""The node's own log: what is shown of it, what is kept for operators, and what its child processes say."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from pgnode.os_support.audit import AuditTrail
from pgnode.os_support.log_levels import level_of_line
from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import PROCESS
from pgnode.supervisor.host.log_level import LogLevel
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.host.recent_lines import CORE, KEPT, RecentLines
from pgnode.supervisor.host.recent_warnings import RecentWarnings

#: How the core begins a line.
_HEAD: Final = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(\.\d+)? (\[\w+\] )?", re.ASCII)

#: Whatever it says is only of use to who looks for a fault.
_VALKEY = "valkey"


class NodeLog:
    """Belongs to the supervisor's loop.

    Args:
        level: The level of the settings.
        left: The lines that the supervisor before handed on.
        keep_lines: Lines that are kept of core and node as they came.
        now: Says the time, Unix seconds.
        show: Prints what a process says.
        audit: Keeps what belongs to the audit trail.
    """

    def __init__(
        self,
        level: str,
        left: Mapping[str, Any] | None = None,
        *,
        keep_lines: int = KEPT,
        now: Callable[[], float] = time.time,
        show: Callable[[Entry], None] = PROCESS.write,
        audit: AuditTrail | None = None,
    ) -> None:
        self.level = LogLevel(level, now)
        self.lines = RecentLines(LogRing(keep_lines), secrets.token_hex(4), left)
        self.warnings = RecentWarnings(now)
        self.audit = audit or AuditTrail(None)
        self._show = show
        self._now = now

    def __repr__(self) -> str:
        return f"NodeLog({self.level!r}, {self.lines!r})"

    def print_core(self, block: bytes, pid: int) -> None:
        """Print lines of the core among the node's own, where their level is shown.

        Args:
            block: The lines, as the core wrote them, with a line feed between two.
            pid: The core's pid; 0 where that is not known.
        """
        for raw in block.split(b"\n"):
            line = raw.decode(errors="replace")
            level = level_of_line(line)
            if self.level.shows(level):
                # It begins with a time and mostly with a level of its own, which stand in every line anyway.
                self._show(Entry(self._now(), level, CORE, pid, _HEAD.sub("", line)))

    def child_says(self, entry: Entry) -> None:
        """Print what a child process says, and keep it, where its level is shown."""
        self.audit.note(entry)
        if entry.process == _VALKEY:
            entry = replace(entry, level="debug")
        if self.level.shows(entry.level):
            self._show(entry)
            self.lines.node(entry)
