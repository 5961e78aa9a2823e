"""Forgets removed users, once all their traffic was reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pgnode.supervisor.traffic.figures import SLICE, TrafficFigures


class Retention:
    """Belongs to the supervisor's loop.

    Args:
        figures: All counters.
        wanted: Returns whether a user of this e-mail is desired.
        delivered: Returns a number that rises whenever something was reported.
    """

    def __init__(self, figures: TrafficFigures, wanted: Callable[[str], bool], delivered: Callable[[], int]) -> None:
        self._figures = figures
        self._wanted = wanted
        self._delivered = delivered
        #: What the last search knew.
        self._searched_at: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"Retention(last search at {self._searched_at})"

    async def forget_removed(self, generation: int) -> None:
        """Leave out users that were removed and are owed nothing; the ledger keeps what the running core still counts.

        Args:
            generation: That of the desired users; without a change there is nothing to search for.
        """
        ledger = self._figures.ledger
        state = (generation, ledger.run, self._delivered())
        if state == self._searched_at:
            return
        self._searched_at = state
        encoded = self._figures.encoded["user"]
        for number, name in enumerate(encoded.names()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if self._wanted(name):
                continue
            counters = encoded.counters_of(name)
            if any((entry := ledger.get(counter)) is not None and entry.owed for counter in counters):
                continue
            encoded.drop(name)
        unlisted = [name for name in ledger.names() if name.startswith("user>>>")]
        for at in range(0, len(unlisted), SLICE):
            ledger.forget(unlisted[at : at + SLICE], lambda counter: self._wanted(_email(counter)))
            await asyncio.sleep(0)
        self._figures.news.set()


def _email(counter: str) -> str:
    """Return the e-mail in the name of a user's counter."""
    return counter.partition(">>>")[2].rsplit(">>>", 2)[0]
