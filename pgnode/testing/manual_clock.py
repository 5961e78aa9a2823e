"""A clock whose time passes only when a test says so."""

from __future__ import annotations

import asyncio

from pgnode.os_support.clock import Clock


class ManualClock(Clock):
    """Gives the time and half a chance; whoever sleeps is woken by :meth:`advance`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.seconds = now
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"ManualClock({self.seconds:g} s, {len(self.pauses)} asleep)"

    @property
    def pauses(self) -> list[float]:
        """How long everybody who is asleep still sleeps, in seconds."""
        return [until - self.seconds for until, future in self._sleepers if not future.done()]

    def now(self) -> float:
        """Return the time."""
        return self.seconds

    def chance(self) -> float:
        """Return what changes no pause."""
        return 0.5

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
