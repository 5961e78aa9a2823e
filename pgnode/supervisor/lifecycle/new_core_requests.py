"""How an operator with nothing but a panel gets a really new core: by three stops and starts within a minute. Pure.

A stop and a start with the same config keep the core, so that panels which do that by themselves disturb nobody. Three in a row,
with nothing else between them, are meant.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: Stops and starts that mean it, and the seconds within which they come.
TIMES: Final = 3
WITHIN_SECONDS: Final = 60.0


class NewCoreRequests:
    """Counts starts that took over a core which a stop had left."""

    def __init__(self) -> None:
        self._moments: deque[float] = deque(maxlen=TIMES)

    def __repr__(self) -> str:
        return f"NewCoreRequests({list(self._moments)})"

    def restarted(self, now: float) -> bool:
        """Take note of a start with the config that was stopped.

        Args:
            now: Monotonic seconds.

        Returns:
            Whether this one asks for a new core; then the count begins anew.
        """
        self._moments.append(now)
        meant = len(self._moments) == TIMES and now - self._moments[0] <= WITHIN_SECONDS
        if meant:
            self._moments.clear()
        return meant

    def started_otherwise(self) -> None:
        """Take note of a start of another kind: without a stop before it, or with another config. It breaks the row."""
        self._moments.clear()
