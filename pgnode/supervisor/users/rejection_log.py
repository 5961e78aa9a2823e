"""Lines of the log about users that cannot be had: of many within a minute only the first ones, since the list has all."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

#: Rejected users that are logged by name within so many seconds, at most.
TOLD_MAX = 5
TOLD_SECONDS = 60.0


class RejectionLog:
    """Counts what it logs.

    Args:
        now: Says the time in seconds; it may be set back.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        #: Since when rejected users are counted, and how many there were.
        self._since = 0.0
        self._told = 0

    def tell(self, email: str, cause: str, listed: int) -> None:
        """Log who was rejected.

        Args:
            email: The user's e-mail as the caller spelled it.
            cause: Why.
            listed: How many are on the list.
        """
        now = self._now()
        if not 0 <= now - self._since < TOLD_SECONDS:
            self._since, self._told = now, 0
        self._told += 1
        if self._told <= TOLD_MAX:
            log.warning("user rejected", user=email, cause=cause)
        elif self._told == TOLD_MAX + 1:
            log.warning("further users rejected: 'pgnode users --failed' shows all", listed=listed)
