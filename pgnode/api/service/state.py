"""What the node's state means for a call that reads from this worker's memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from pgnode.api.service import deadline
from pgnode.api.service.ports import Reads, Refresh
from pgnode.bus.state import KNOWN_SECONDS, NOT_KNOWN_YET, State
from pgnode.errors import BusUnavailableError, CoreNotStartedError, CoreUnavailableError, NotInitializedError

#: Looking a member up in its class takes longer than comparing it, and every read asks.
_RUNNING = State.RUNNING

_Answer = TypeVar("_Answer")


class StateChecks:
    """Tells whether the core can be read, and what to answer where it cannot.

    Args:
        reads: Holds the node's state.
        refresh: Fetches a newer one.
        known_seconds: Seconds that a read waits for a new supervisor to know whether a core runs.
    """

    def __init__(self, reads: Reads, refresh: Refresh, *, known_seconds: float = KNOWN_SECONDS) -> None:
        self._known_seconds = known_seconds
        self._reads = reads
        self._refresh = refresh

    def __repr__(self) -> str:
        return f"StateChecks({self._reads.status})"

    def core_answers(self) -> bool:
        """Tell whether the core runs, and its API answered last time."""
        status = self._reads.status
        return status is not None and status.state == _RUNNING and not status.core_api_error

    async def after_refresh(self, answer: Callable[[], _Answer], *, core_found: bool = False) -> _Answer:
        """Return ``answer()`` after fetching news: those of a start may still be on their way to this worker.

        A panel that is told "backend not initialized" right after its start would start once more. It would as well if a
        supervisor that has just begun said so of a core that it has not found yet: what that leads to is waited for.

        Args:
            answer: Makes the answer.
            core_found: Whether it is enough to know that a core runs, and it need not be taken over yet.

        Returns:
            The answer.

        Raises:
            DeadlineExceededError: The caller has given up already.
        """
        await self._refresh()
        if not self._is_known(core_found):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline.remaining(self._known_seconds)):
                    while not self._is_known(core_found):
                        await self._reads.news()
        return answer()

    def _is_known(self, core_found: bool) -> bool:
        status = self._reads.status
        return status is None or status.state is not State.RESTORING or (core_found and status.core_ready)

    def require_core(self, failure: str) -> None:
        """Refuse a read that needs the core where the core cannot be read.

        Args:
            failure: The beginning of the text where the core's API did not answer.

        Raises:
            BusUnavailableError: The state is not known yet.
            CoreNotStartedError: The core is being started or brought back.
            NotInitializedError: None was started.
            CoreUnavailableError: Its API did not answer, or the node was restarted and has not taken its core over yet.
        """
        status = self._reads.status
        if status is None:
            raise BusUnavailableError("the node's state is not known yet: the supervisor has not sent it, try again")
        if status.state is State.RESTORING:
            raise CoreUnavailableError(f"{failure}: {NOT_KNOWN_YET}")
        if status.state in (State.STARTING, State.RECOVERING):
            raise CoreNotStartedError
        if status.state != State.RUNNING:
            raise NotInitializedError
        if status.core_api_error:
            raise CoreUnavailableError(f"{failure}: {status.core_api_error}")
