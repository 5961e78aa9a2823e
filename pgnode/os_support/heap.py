"""Memory that large messages took is given back to the system when they are gone.

glibc keeps what was freed between objects that live on; after a start or a full set of 100,000 users that is 50 MB and more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pgnode.os_support.malloc import trim_heap

#: Seconds before memory is given back: the answer goes first, and whatever held the message is gone by then.
PAUSE_SECONDS = 0.5


class HeapTrimmer:
    """Gives memory back to the system a moment after a request. Belongs to one event loop.

    Args:
        trim: Gives memory back; called in a thread.
        pause_seconds: Seconds between the first request and that.
    """

    def __init__(self, trim: Callable[[], None] = trim_heap, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._trim = trim
        self._pause_seconds = pause_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"HeapTrimmer({'soon' if self._timer is not None else 'idle'})"

    def soon(self) -> None:
        """Give memory back soon; once for all who ask until then."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause_seconds, self._now)

    def _now(self) -> None:
        self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().run_in_executor(None, self._trim)
