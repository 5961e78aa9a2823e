"""Large answers over gRPC are handed to the library a few at a time, since it copies each whole and keeps it until it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pgnode.bus.indexed import Body

#: Answers above this are large.
LARGE_BYTES = 1024 * 1024

#: Large answers that are written at once, as long as their callers take them quickly.
SLOTS = 4

#: Seconds after which a slot is free again although its answer is not written yet: so a slow caller does not delay others.
SLOT_SECONDS = 0.2


class LargeResponseLimiter:
    """The slots for large answers. Belongs to one event loop.

    Args:
        slot_seconds: Time after which a slot is free again.
    """

    def __init__(self, slot_seconds: float = SLOT_SECONDS) -> None:
        self._slot_seconds = slot_seconds
        self._slots = asyncio.Semaphore(SLOTS)

    def __repr__(self) -> str:
        return f"LargeResponseLimiter({self._slots!r})"

    @asynccontextmanager
    async def slot(self, answer: Body) -> AsyncIterator[None]:
        """Hold a slot while ``answer`` is written; wait for one where it is large."""
        if len(answer) <= LARGE_BYTES:
            yield
            return
        await self._slots.acquire()
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self._slots.release()

        timer = asyncio.get_running_loop().call_later(self._slot_seconds, release)
        try:
            yield
        finally:
            timer.cancel()
            release()
