"""How often a supervisor that cannot go on may restart itself in place. Pure: the time is an argument.

Where that does not help, it ends: whoever runs the node starts another one, which takes the core over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Restarts because of errors, and the seconds within which so many are allowed.
RESTARTS_MAX: Final = 3
WITHIN_SECONDS: Final = 600.0


def spend(
    failures: Sequence[float], now: float, *, most: int = RESTARTS_MAX, within_seconds: float = WITHIN_SECONDS
) -> tuple[float, ...] | None:
    """Decide about one more restart because of an error.

    Args:
        failures: When there were restarts before, in seconds on a clock that nobody sets and that outlives the exec.
        now: Seconds on the same clock.
        most: Restarts that are allowed.
        within_seconds: Within so many seconds.

    Returns:
        The moments to be kept, with this one; None when it is not allowed.
    """
    recent = tuple(at for at in failures if 0 <= now - at < within_seconds)
    return (*recent, now) if len(recent) < most else None
