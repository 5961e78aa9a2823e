"""Clocks for tests of pauses, which take no time then: one hurries on by itself, one waits for the test."""

from __future__ import annotations

import asyncio

from pgnode.os_support.clock import Clock


class _ToldClock(Clock):
    """Shows what it was told, and gives half a chance."""

    def __init__(self, now: float = 1000.0) -> None:
        self.seconds = now

    def now(self) -> float:
        """Return the time in seconds."""
        return self.seconds

    def chance(self) -> float:
        """Return what changes no pause."""
        return 0.5


class HurryingClock(_ToldClock):
    """Goes on by itself: whoever sleeps is awake at once, and so much later it is; remembers every pause.

    Args:
        now: Seconds that it shows at first.
    """

    def __init__(self, now: float = 1000.0) -> None:
        super().__init__(now)
        #: The pauses that were asked for, in seconds.
        self.pauses: list[float] = []

    def __repr__(self) -> str:
        return f"HurryingClock({self.seconds:g} s, {len(self.pauses)} pauses)"

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass at once; other tasks get their turn."""
        self.pauses.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


class ManualClock(_ToldClock):
    """Stands still: whoever sleeps is woken by :meth:`advance`.

    Args:
        now: Seconds that it shows at first.
    """

    def __init__(self, now: float = 1000.0) -> None:
        super().__init__(now)
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"ManualClock({self.seconds:g} s, {len(self.pauses)} asleep)"

    @property
    def pauses(self) -> list[float]:
        """How long everybody who is asleep still sleeps, in seconds."""
        return [until - self.seconds for until, future in self._sleepers if not future.done()]

    async def sleep(self, seconds: float) -> None:
        """Wait until so many seconds have passed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.seconds + seconds, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everybody who is woken do what there is to do."""
        await run_ready()  # whoever is about to sleep
        self.seconds += seconds
        for until, future in self._sleepers:
            if until <= self.seconds and not future.done():
                future.set_result(None)
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].done()]
        await run_ready()


async def run_ready(turns: int = 50) -> None:
    """Give every task that can go on so many turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
