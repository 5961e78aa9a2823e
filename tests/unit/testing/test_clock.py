"""The clocks of tests: one that hurries, and one that a test moves."""

from __future__ import annotations

import asyncio

from pgnode.testing.clock import HurryingClock, ManualClock


async def test_pauses_take_no_time_and_move_the_clock() -> None:
    clock = HurryingClock(5.0)
    await clock.sleep(3600)
    await clock.sleep(0.5)
    assert clock.now() == 3605.5
    assert clock.pauses == [3600, 0.5]
    assert clock.chance() == 0.5
    assert "3605.5" in repr(clock)


async def test_sleepers_wake_when_their_time_has_come() -> None:
    clock = ManualClock(100.0)
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleep(seconds)) for seconds in (1.0, 3.0)]
    await clock.advance(2.0)
    assert (woken, clock.pauses, clock.now(), clock.chance()) == ([1.0], [1.0], 102.0, 0.5)
    assert "1 asleep" in repr(clock)
    await clock.advance(1.0)
    await asyncio.gather(*tasks)
    assert woken == [1.0, 3.0]
