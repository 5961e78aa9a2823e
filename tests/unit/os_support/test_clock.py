"""The machine's own time."""

from __future__ import annotations

from pgnode.os_support.clock import Clock


async def test_time_passes_and_chance_is_a_fraction() -> None:
    clock = Clock()
    before = clock.now()
    await clock.sleep(0.0)
    assert clock.now() >= before
    assert 0.0 <= clock.chance() < 1.0
