"""Why starts were refused, in the node's log: one line for a reason, and few for one that comes again and again.

A panel whose config fails sends it every ten seconds, for days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from pgnode.os_support.clock import Clock

log = structlog.get_logger(__name__)

#: Seconds until a reason is said again, the first time and at most; it doubles in between.
FIRST_PAUSE_SECONDS: Final = 60.0
LONGEST_PAUSE_SECONDS: Final = 6 * 3600.0


@dataclass(slots=True)
class RepeatedReason:
    """Decides when a reason that comes again is said again. Pure."""

    #: The reason that came last; "" before the first one.
    reason: str = ""
    #: How often it came in a row.
    times: int = 0
    _next_at: float = 0.0
    _pause_seconds: float = FIRST_PAUSE_SECONDS

    def came(self, reason: str, now: float) -> bool:
        """Take note of a reason.

        Args:
            reason: The text.
            now: Monotonic seconds.

        Returns:
            Whether it has to be said.
        """
        if reason != self.reason:
            self.reason, self.times = reason, 1
            self._pause_seconds = FIRST_PAUSE_SECONDS
            self._next_at = now + FIRST_PAUSE_SECONDS
            return True
        self.times += 1
        if now < self._next_at:
            return False
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        self._next_at = now + self._pause_seconds
        return True


class RefusalLog:
    """Says why starts were refused.

    Args:
        clock: Tells when it is.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else Clock()
        self._repeated = RepeatedReason()

    def __repr__(self) -> str:
        return f"RefusalLog({self._repeated!r})"

    def refused(self, reason: str) -> None:
        """Say why a start was refused, unless that was said a while ago."""
        if self._repeated.came(reason, self._clock.now()):
            log.warning("start refused", reason=reason, times=self._repeated.times)

    def succeeded(self) -> None:
        """Take note of a start that was not: after it, every reason is news."""
        self._repeated = RepeatedReason()
