"""Levels of log lines, whoever printed them: the node's own processes, Gunicorn, the core. Pure."""

from __future__ import annotations

import re
from typing import Final

#: The levels that can be asked for, the most talkative first.
LEVELS: Final = ("debug", "info", "warning", "error")

#: What a line is that names no level.
USUAL: Final = "info"

#: Other names of a level, and errors that are worse.
_SAME: Final = {"warn": "warning", "critical": "error", "fatal": "error", "exception": "error"}

#: Characters at the beginning of a line in which its level stands, behind the time and perhaps a pid.
_HEAD: Final = 60

_NAMED: Final = re.compile(r"\[(debug|info|warn|warning|error|critical|fatal)\s*\]", re.IGNORECASE)


def known_level(name: str) -> str:
    """Return the level of this name, in lower or upper case; one that nobody knows is a usual one."""
    lower = name.lower()
    level = _SAME.get(lower, lower)
    return level if level in LEVELS else USUAL


def rank(level: str) -> int:
    """Return how grave a level is: 0 for debug, and more for what is worse."""
    return LEVELS.index(known_level(level))


def level_of_line(line: str) -> str:
    """Find the level that a line names.

    Args:
        line: The line, such as ``2026/11/29 12:00:00 [warning] no room`` or ``[2026-11-29 12:00:00 +0000] [7] [INFO] …``.

    Returns:
        One of :data:`LEVELS`.
    """
    found = _NAMED.search(line[:_HEAD])
    return known_level(found[1]) if found is not None else USUAL
