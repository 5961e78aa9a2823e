"""Time and chance, in one object that a test can replace."""

from __future__ import annotations

import asyncio
import random
import time


class Clock:
    """The machine's own."""

    def now(self) -> float:
        """Return seconds on a clock that nobody sets."""
        return time.monotonic()

    def chance(self) -> float:
        """Return a random number in [0, 1), for the jitter of pauses."""
        return random.random()  # noqa: S311 - jitter

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(seconds)
