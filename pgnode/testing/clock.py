"""A clock that goes on only when somebody waits on it, so that tests of pauses take no time."""

from __future__ import annotations

import asyncio

from pgnode.os_support.clock import Clock


class FakeClock(Clock):
    """Gives the time, and waits without waiting; remembers every pause.

    Args:
        now: Seconds that it shows at first.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.seconds = now
        #: The pauses that were asked for, in seconds.
        self.pauses: list[float] = []

    def __repr__(self) -> str:
        return f"FakeClock({self.seconds:g} s, {len(self.pauses)} pauses)"

    def now(self) -> float:
        """Return the time in seconds."""
        return self.seconds

    def chance(self) -> float:
        """Return what changes no pause."""
        return 0.5

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass at once; other tasks get their turn."""
        self.pauses.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)
