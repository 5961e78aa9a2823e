"""Finds out that this supervisor's connections to the bus are wedged: Redis answers others, and not us.

All calls over the bus have deadlines and connect anew after an error, so this should not happen; where it does, nothing but new
objects helps, which is what a restart in place brings.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import structlog

from pgnode.bus.connection import BUS_ERRORS
from pgnode.errors import TaskFailedError
from pgnode.os_support.beats import pause_to_beat

log = structlog.get_logger(__name__)

#: Seconds between two looks, and how many in a row have to find it wedged.
INTERVAL_SECONDS = 10.0
FINDINGS = 3

#: Seconds that Redis has to answer.
ANSWER_SECONDS = 5.0

#: Seconds within which commands are looked for, whatever happens.
SILENT_SECONDS = 60.0

#: Asks Redis for a sign of life. Raises BUS_ERRORS.
Ping = Callable[[], Awaitable[object]]


class BusWatch:
    """Belongs to the supervisor's loop.

    Args:
        ping: Asks over the supervisor's own connections.
        ping_anew: Asks over a connection that is made for it.
        looked_at: When commands were looked for last, in seconds on the monotonic clock.
        interval_seconds: Seconds between two looks.
        answer_seconds: Seconds that Redis has to answer.
        silent_seconds: Seconds within which commands are looked for.
    """

    def __init__(
        self,
        ping: Ping,
        ping_anew: Ping,
        looked_at: Callable[[], float],
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self._ping = ping
        self._ping_anew = ping_anew
        self._looked_at = looked_at
        self._interval_seconds = interval_seconds
        self._answer_seconds = answer_seconds
        self._silent_seconds = silent_seconds

    def __repr__(self) -> str:
        return f"BusWatch(every {self._interval_seconds:g} s)"

    async def run(self) -> None:
        """Look until cancelled.

        Raises:
            TaskFailedError: The connections are wedged.
        """
        found = 0
        while found < FINDINGS:
            await pause_to_beat(self._interval_seconds)
            found = found + 1 if await self._is_wedged() else 0
            if found:
                log.warning("the bus answers others, but not this supervisor", times=found)
        raise TaskFailedError("the bus answers others, but not this supervisor: see the node's log")

    async def _is_wedged(self) -> bool:
        well = time.monotonic() - self._looked_at() < self._silent_seconds and await self._answers(self._ping)
        return not well and await self._answers(self._ping_anew)

    async def _answers(self, ping: Ping) -> bool:
        with contextlib.suppress(TimeoutError, *BUS_ERRORS):
            async with asyncio.timeout(self._answer_seconds):
                await ping()
                return True
        return False
