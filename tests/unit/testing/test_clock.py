"""The clock of tests."""

from __future__ import annotations

from pgnode.testing.clock import FakeClock


async def test_pauses_take_no_time_and_move_the_clock() -> None:
    clock = FakeClock(5.0)
    await clock.sleep(3600)
    await clock.sleep(0.5)
    assert clock.now() == 3605.5
    assert clock.pauses == [3600, 0.5]
    assert clock.chance() == 0.5
    assert "3605.5" in repr(clock)
