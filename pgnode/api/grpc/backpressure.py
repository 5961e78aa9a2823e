"""Large answers over gRPC are handed to the library a few at a time, since it copies each whole and keeps it until it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Answers above this are large.
LARGE_BYTES = 1024 * 1024

#: Large answers that are written at once, as long as their callers take them quickly.
AT_ONCE = 4

#: Seconds after which another one may be begun although this one is not written yet: a slow caller holds up nobody.
QUICK_SECONDS = 0.2


class LargeResponseLimiter:
    """The places for them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)

    def __repr__(self) -> str:
        return f"LargeResponseLimiter({self._places!r})"

    @asynccontextmanager
    async def place(self, answer: bytes) -> AsyncIterator[None]:
        """For the time in which ``answer`` is written; waits for a place where it is large."""
        if len(answer) <= LARGE_BYTES:
            yield
            return
        await self._places.acquire()
        held = True

        def leave() -> None:
            nonlocal held
            if held:
                held = False
                self._places.release()

        timer = asyncio.get_running_loop().call_later(QUICK_SECONDS, leave)
        try:
            yield
        finally:
            timer.cancel()
            leave()
