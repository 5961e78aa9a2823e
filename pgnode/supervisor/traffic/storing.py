"""Decides when the ledger is stored.

What a living core counted is in the core as well: a supervisor that was killed finds it there again. So readings are stored
only once in STORE_SECONDS; besides before a core is ended, when it has died, with the end of a loan, and when the supervisor
ends. If core and supervisor are killed at the same moment, or the power fails, some ten seconds of traffic that was not handed
out are lost: STORE_SECONDS, one reading, and the second that the disk may be behind. A commit appends
what moved, compressed, 5,000 counters to a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pgnode.supervisor.traffic.figures import TrafficFigures

#: Seconds between two commits of what a living core counted.
STORE_SECONDS = 5.0


class TrafficStoring:
    """Belongs to the supervisor's loop.

    Args:
        figures: What was counted.
        commit: Stores what the journal holds of the traffic.
        store_seconds: Seconds between two commits of what a living core counted.
    """

    def __init__(
        self,
        figures: TrafficFigures,
        commit: Callable[[], Awaitable[object]],
        *,
        store_seconds: float = STORE_SECONDS,
    ) -> None:
        self._figures = figures
        self._commit = commit
        self._store_seconds = store_seconds
        #: Seconds of the loop's clock.
        self._stored_at = float("-inf")

    def __repr__(self) -> str:
        return f"TrafficStoring(every {self._store_seconds:g} s)"

    async def store_now(self) -> None:
        """Store everything that was counted, and every change of a loan."""
        self._stored_at = asyncio.get_running_loop().time()
        await self._figures.note_all()
        await self._commit()

    async def store_if_due(self) -> None:
        """Store what was counted, unless it was stored a moment ago and the core still has it."""
        if asyncio.get_running_loop().time() - self._stored_at >= self._store_seconds:
            await self.store_now()
