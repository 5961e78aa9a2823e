"""Figures that are not older than callers may expect: newer ones are asked for, and waited for, within limits.

The supervisor reads the core seldom while nobody asks. A worker whose callers ask has it read before the figures get old, so that
under steady load nobody waits; whoever comes first after a pause waits a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from pgnode.api.service.ports import Commands
from pgnode.bus.commands import INBOUNDS, Kind
from pgnode.errors import NodeError

#: Seconds for which callers wait for newer figures; then they get what there is.
WAIT_SECONDS = 0.25

#: Seconds for which they wait where what there is shows what was handed out since, which is never told.
VOID_SECONDS = 2.5

#: Seconds for which they wait for what has to be fetched from another host.
FETCH_SECONDS = 2.5

#: Turns of the event loop for which what has come is waited for at most: it is read in the next one.
TURNS = 20

#: Seconds that the supervisor has for one request.
REQUEST_SECONDS = 5.0

#: Seconds between two requests, at least: those of a supervisor that does not answer are not piled up.
PAUSE_SECONDS = 0.25


class Figures(Protocol):
    """The figures that there are, and their age."""

    @property
    def renew_at(self) -> float:
        """Monotonic time from which on newer ones are to be asked for."""

    @property
    def stale_at(self) -> float:
        """Monotonic time from which on they are too old."""

    def is_void(self, name: str) -> bool:
        """Whether a snapshot shows what was handed out since."""

    def is_behind(self, name: str) -> bool:
        """Whether there is a newer revision of a snapshot, which has to be fetched from another host first."""

    @property
    def want(self) -> Callable[[str], None]:
        """Has it fetched."""

    @property
    def has_unheard(self) -> Callable[[], bool]:
        """Tells whether further ones have come that are taken over in the next turn of the event loop."""

    async def news(self) -> None:
        """Wait for the next figures, or what tells their age."""


class Freshness:
    """Asks for newer figures. Belongs to one event loop.

    Args:
        figures: What there is.
        commands: The way to the supervisor.
        now: Monotonic seconds, of the same clock as the figures.
        wait_seconds: For how long callers wait for newer figures.
        void_seconds: For how long they wait where what there is cannot be told.
        fetch_seconds: For how long they wait for what has to be fetched from another host.
    """

    def __init__(
        self,
        figures: Figures,
        commands: Commands,
        *,
        now: Callable[[], float] = time.monotonic,
        wait_seconds: float = WAIT_SECONDS,
        void_seconds: float = VOID_SECONDS,
        fetch_seconds: float = FETCH_SECONDS,
    ) -> None:
        self._fetch_seconds = fetch_seconds
        self._figures = figures
        self._commands = commands
        self._now = now
        self._wait_seconds = wait_seconds
        self._void_seconds = void_seconds
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        #: Until when the figures were fresh that were waited for in vain: while there are no others, nobody waits again.
        self._in_vain: float | None = None

    def __repr__(self) -> str:
        return f"Freshness({'in vain' if self._in_vain == self._figures.stale_at else 'well'})"

    def is_fresh(self) -> bool:
        """Tell whether the figures are new enough; newer ones are asked for before they are not."""
        now, figures = self._now(), self._figures
        if now < figures.renew_at:
            return True
        self._ask(now)
        return now < figures.stale_at

    async def wait(self, name: str) -> bool:
        """Wait for newer figures, where these are too old or void.

        Args:
            name: The snapshot that is read.

        Returns:
            Whether there is one that can be told.
        """
        figures = self._figures
        for _ in range(TURNS):
            if not figures.has_unheard():
                break
            await asyncio.sleep(0)
        void = figures.is_void(name)
        if void or not self.is_fresh():
            self._ask(self._now())
            # Whoever comes later waits no longer than whoever made it be asked.
            until = self._asked_at + (self._void_seconds if void else self._wait_seconds)
            try:
                patience = 0.0 if self._in_vain == figures.stale_at and not void else max(0.0, until - self._now())
                async with asyncio.timeout(patience):
                    while figures.is_void(name) or self._now() >= figures.stale_at:
                        if figures.is_behind(name):
                            figures.want(name)
                        await figures.news()
            except TimeoutError:
                self._in_vain = figures.stale_at
        if figures.is_behind(name):
            await self._fetched(name)
        return not figures.is_void(name)

    async def _fetched(self, name: str) -> None:
        """Wait for a snapshot that has to be fetched; where that takes too long, the one before is told."""
        figures = self._figures
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._fetch_seconds):
                while figures.is_behind(name):
                    figures.want(name)
                    await figures.news()

    def ask_for_inbounds(self) -> None:
        """Have inbounds counted, from the next core on."""
        self._ask(self._now(), INBOUNDS)

    def _ask(self, now: float, what: bytes = b"") -> None:
        if (self._asking is None or self._asking.done()) and now - self._asked_at >= PAUSE_SECONDS:
            self._asked_at = now
            self._asking = asyncio.create_task(self._look(what))

    async def _look(self, what: bytes) -> None:
        try:
            await self._commands.call(Kind.LOOK, what, REQUEST_SECONDS)
        except NodeError:
            # What there is stays; the next reader asks again.
            return
