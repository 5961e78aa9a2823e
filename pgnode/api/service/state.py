"""What the node's state means for a call that reads from this worker's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pgnode.api.service.ports import Reads, Refresh
from pgnode.bus.indexed import Body
from pgnode.bus.state import State
from pgnode.errors import BusUnavailableError, CoreNotStartedError, CoreUnavailableError, NotInitializedError

#: Looking a member up in its class takes longer than comparing it, and every read asks.
_RUNNING = State.RUNNING


_Answer = TypeVar("_Answer", bound=Body)


class StateChecks:
    """Tells whether the core can be read, and what to answer where it cannot.

    Args:
        reads: Holds the node's state.
        refresh: Fetches a newer one.
    """

    def __init__(self, reads: Reads, refresh: Refresh) -> None:
        self._reads = reads
        self._refresh = refresh

    def __repr__(self) -> str:
        return f"StateChecks({self._reads.status})"

    def core_answers(self) -> bool:
        """Tell whether the core runs, and its API answered last time."""
        status = self._reads.status
        return status is not None and status.state == _RUNNING and not status.core_api_error

    async def after_refresh(self, answer: Callable[[], _Answer]) -> _Answer:
        """Return ``answer()`` after fetching news: those of a start may still be on their way to this worker.

        A panel that is told "backend not initialized" right after its start would start once more.
        """
        await self._refresh()
        return answer()

    def require_core(self, failure: str) -> None:
        """Refuse a read that needs the core where the core cannot be read.

        Args:
            failure: The beginning of the text where the core's API did not answer.

        Raises:
            BusUnavailableError: The state is not known yet.
            CoreNotStartedError: The core is being started or brought back.
            NotInitializedError: None was started.
            CoreUnavailableError: Its API did not answer.
        """
        status = self._reads.status
        if status is None:
            raise BusUnavailableError("the node's state is not known yet: the supervisor has not sent it, try again")
        if status.state in (State.STARTING, State.RECOVERING):
            raise CoreNotStartedError
        if status.state != State.RUNNING:
            raise NotInitializedError
        if status.core_api_error:
            raise CoreUnavailableError(f"{failure}: {status.core_api_error}")
