"""Large answers take turns; small ones do not, and whoever is slow gives up the turn."""

from __future__ import annotations

import asyncio

from pgnode.api.grpc.backpressure import LARGE_BYTES, SLOTS, LargeResponseLimiter
from tests.support.polling import eventually

LARGE = bytes(LARGE_BYTES + 1)

#: Longer than any test waits.
LONG_SECONDS = 3600.0


class Callers:
    """Each is written to until it is told that it has everything."""

    def __init__(self, slot_seconds: float = LONG_SECONDS) -> None:
        self._large = LargeResponseLimiter(slot_seconds)
        self.writing = 0
        self.most = 0
        self.done = asyncio.Event()

    async def answer(self, body: bytes) -> None:
        async with self._large.slot(body):
            self.writing += 1
            self.most = max(self.most, self.writing)
            await self.done.wait()
            self.writing -= 1


async def test_a_few_large_answers_at_once_and_any_number_of_small_ones() -> None:
    callers = Callers()
    callers.done.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*(callers.answer(LARGE) for _ in range(20)))
    assert callers.most <= SLOTS
    callers.done.clear()
    small = [asyncio.create_task(callers.answer(b"small")) for _ in range(20)]
    await eventually(lambda: callers.writing == 20, "all are written to", 10)
    callers.done.set()
    await asyncio.gather(*small)


async def test_slow_callers_hold_up_nobody_for_long() -> None:
    callers = Callers(slot_seconds=0.01)
    slow = [asyncio.create_task(callers.answer(LARGE)) for _ in range(SLOTS)]
    await eventually(lambda: callers.writing == SLOTS, "all slots are taken", 10)
    late = asyncio.create_task(callers.answer(LARGE))
    await eventually(lambda: callers.writing == SLOTS + 1, "the late one has a slot", 10)
    callers.done.set()
    await asyncio.gather(*slow, late)
    callers.most = callers.writing
    await asyncio.gather(*(callers.answer(LARGE) for _ in range(SLOTS)))
    assert callers.most <= SLOTS


async def test_a_call_that_is_cancelled_gives_its_slot_back() -> None:
    callers = Callers()
    calls = [asyncio.create_task(callers.answer(LARGE)) for _ in range(3 * SLOTS)]
    await eventually(lambda: callers.writing == SLOTS, "all slots are taken", 10)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    callers.writing = callers.most = 0
    callers.done.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*(callers.answer(LARGE) for _ in range(2 * SLOTS)))
    assert callers.most <= SLOTS
