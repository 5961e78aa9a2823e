"""When the panel's silence counts."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.connection import BUS_ERRORS
from pgnode.supervisor.lifecycle.panel_watch import POLL_INTERVAL_SECONDS, Finding, Silence, watch_panel
from pgnode.testing.clock import ManualClock


def test_silence_beyond_the_limit_is_told_once_and_so_is_the_return() -> None:
    silence = Silence()
    readings = [(0, 1), (5, 1), (10, 1), (11, 1), (12, 1), (13, 2), (14, 2)]
    findings = [silence.read(now, 10, seen) for now, seen in readings]
    away, back = Finding.WENT_AWAY, Finding.CAME_BACK
    quiet = Finding.NOTHING_NEW
    assert findings == [quiet, quiet, quiet, away, quiet, back, quiet]


def test_without_a_limit_nobody_is_missed() -> None:
    silence = Silence()
    assert {silence.read(now, 0, None) for now in range(0, 1000, 7)} == {Finding.NOTHING_NEW}


def test_a_start_with_another_limit_is_a_call() -> None:
    silence = Silence()
    silence.read(0, 10, 1)
    assert silence.read(60, 30, 1) is Finding.NOTHING_NEW
    assert silence.read(80, 30, 1) is Finding.NOTHING_NEW
    assert silence.read(91, 30, 1) is Finding.WENT_AWAY


def test_time_without_a_store_is_not_the_panels_silence() -> None:
    silence = Silence()
    silence.read(0, 10, 1)
    silence.unknown(100)
    assert silence.read(105, 10, 1) is Finding.NOTHING_NEW
    assert silence.read(111, 10, 1) is Finding.WENT_AWAY


def test_a_stop_ends_the_waiting() -> None:
    silence = Silence()
    silence.read(0, 10, 1)
    silence.read(11, 10, 1)
    assert silence.read(12, 0, None) is Finding.CAME_BACK


@given(st.lists(st.tuples(st.floats(min_value=0, max_value=20), st.booleans()), max_size=40))
def test_away_means_silent_for_longer_than_the_limit(steps: list[tuple[float, bool]]) -> None:
    silence = Silence()
    now, called_at, counter = 0.0, 0.0, 0
    silence.read(now, 10, counter)
    for pause, called in steps:
        now += pause
        if called:
            counter, called_at = counter + 1, now
        silence.read(now, 10, counter)
        assert silence.away is (now - called_at > 10)


async def test_the_watch_tells_when_the_panel_goes_and_comes() -> None:
    clock = ManualClock()
    counter: list[object] = [1]
    limit = [10]
    told: list[bool] = []

    async def read() -> object:
        if isinstance(counter[-1], Exception):
            raise counter[-1]
        return counter[-1]

    async def tell(away: bool) -> None:
        told.append(away)

    async def pass_seconds(count: int) -> None:
        for _ in range(count):
            await clock.advance(POLL_INTERVAL_SECONDS)

    task = asyncio.create_task(watch_panel(lambda: limit[0], read, tell, clock))
    await pass_seconds(9)
    counter.append(BUS_ERRORS[0]("away"))
    await pass_seconds(5)
    counter.append(1)
    await pass_seconds(9)
    assert told == [], "nobody knows whether it called while the bus was away"
    await pass_seconds(3)
    assert told == [True]
    counter.append(2)
    await pass_seconds(1)
    assert told == [True, False]
    await pass_seconds(12)
    limit[0] = 0
    await pass_seconds(1)
    assert told == [True, False, True, False]
    task.cancel()
