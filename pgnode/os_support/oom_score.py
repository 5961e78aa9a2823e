"""Whom the kernel ends first when memory runs out: API workers, then the bus, then the supervisor, and the core last.

The kernel ends the process with the highest score: its share of the memory in thousandths, and ``oom_score_adj`` on top
(proc(5)). Everybody may raise that of a process, and lower it again to what a privileged process set. So the supervisor raises
its own, its children raise theirs further, and the core gets what the supervisor was started with.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

#: Thousandths above the core for the supervisor, and above the supervisor for the bus and for everything else.
SUPERVISOR_POINTS: Final = 500
BUS_POINTS: Final = 200
EXPENDABLE_POINTS: Final = 400

#: What the kernel takes at most.
MAX_SCORE: Final = 1000

#: Tells a supervisor that takes its own place with which score the first one was started.
FIRST_VARIABLE: Final = "PGNODE_OOM_SCORE_ADJ"

_OWN: Final = "self"


def read_score(pid: int | str = _OWN) -> int:
    """Read ``oom_score_adj`` of a process.

    Args:
        pid: The process; "self" for this one.

    Returns:
        The score, -1000 to 1000.

    Raises:
        OSError: There is no such process, or no such file.
        ValueError: The file holds no number.
    """
    return int(_path(pid).read_text(encoding="ascii"))


def write_score(pid: int | str, score: int) -> None:
    """Set ``oom_score_adj`` of a process.

    Args:
        pid: The process; "self" for this one.
        score: The score; cut to what the kernel takes.

    Raises:
        OSError: There is no such process, or it may not have so low a score.
    """
    _path(pid).write_text(str(min(score, MAX_SCORE)), encoding="ascii")


def raise_own(points: int) -> None:
    """Let this process be ended before others; where the system does not take that, it stays as it was.

    Args:
        points: Thousandths to be added.
    """
    try:
        write_score(_OWN, read_score() + points)
    except (OSError, ValueError):
        return


def give_way_to_the_core(environment: MutableMapping[str, str]) -> int | None:
    """Let this process, the supervisor, be ended before the core.

    Args:
        environment: Its own, where the first score is noted for a supervisor that takes its place.

    Returns:
        The score that the core is to have; None where the system knows none.
    """
    try:
        own = read_score()
    except (OSError, ValueError):
        return None
    try:
        first = min(int(environment[FIRST_VARIABLE]), own)
    except (KeyError, ValueError):
        first = own
    environment[FIRST_VARIABLE] = str(first)
    try:
        write_score(_OWN, first + SUPERVISOR_POINTS)
    except OSError:
        return None
    return first


def _path(pid: int | str) -> Path:
    return Path(f"/proc/{pid}/oom_score_adj")
