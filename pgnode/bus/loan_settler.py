"""Answers on loan, on a worker's side: fetches large ones, and tells the supervisor what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from pgnode.bus.commands import Kind, settlement
from pgnode.errors import NodeError
from pgnode.os_support.aio import end_tasks, retry

log = structlog.get_logger(__name__)

#: Seconds for one attempt to tell the supervisor what became of a loan, and between two attempts.
SETTLE_SECONDS = 5.0
SETTLE_PAUSE_SECONDS = 0.3

#: Seconds that a worker which ends gives to what it still has to tell.
LAST_WORDS_SECONDS = 2.0

Call = Callable[[Kind, bytes, float], Awaitable[bytes]]
Settle = Callable[[bool], None]


class LoanSettler:
    """Tells what became of loans, for as long as it takes. Belongs to one event loop.

    Args:
        call: Asks the supervisor.
        pause_seconds: Between two attempts to tell it.
        last_words_seconds: That a worker which ends gives to what it still has to tell.
    """

    def __init__(
        self,
        call: Call,
        *,
        pause_seconds: float = SETTLE_PAUSE_SECONDS,
        last_words_seconds: float = LAST_WORDS_SECONDS,
    ) -> None:
        self._call = call
        self._pause_seconds = pause_seconds
        self._last_words_seconds = last_words_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"LoanSettler({len(self._tasks)} to tell)"

    async def close(self) -> None:
        """Wait a moment for what is still to be told; loans that are left are owed again once this worker counts as dead."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._last_words_seconds)
        self._closed = True
        await end_tasks(self._tasks)

    def settle(self, loan: str, *, delivered: bool) -> None:
        """Tell the supervisor what became of a loan. Returns at once.

        Args:
            loan: The id of the command that took it.
            delivered: Whether the answer reached its caller.
        """
        if self._closed:
            return
        task = asyncio.get_running_loop().create_task(self._tell(settlement(loan, delivered=delivered)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def once(self, loan: str) -> Settle:
        """Return a function that takes whether the answer reached its caller, and does nothing the second time."""
        settled = False

        def settle(delivered: bool) -> None:
            nonlocal settled
            if not settled:
                settled = True
                self.settle(loan, delivered=delivered)

        return settle

    async def _tell(self, body: bytes) -> None:
        """Tell until the supervisor has stored it: a Redis that is away, or comes back empty, loses no settlement."""
        await retry(
            lambda: self._call(Kind.SETTLE, body, SETTLE_SECONDS),
            (NodeError,),
            pause_seconds=self._pause_seconds,
            on_error=lambda error: log.debug("loan not settled yet, trying again", error=str(error)),
        )
