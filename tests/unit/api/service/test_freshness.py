"""Newer figures are asked for in time, and waited for within limits."""

from __future__ import annotations

import asyncio

from pgnode.api.service.freshness import PAUSE_SECONDS, Freshness
from pgnode.bus.commands import INBOUNDS, Kind
from pgnode.errors import BusUnavailableError
from tests.support.polling import eventually, next_turn
from tests.unit.api.fakes import FakeCommands, FakeReads


class Stage:
    """Figures that are renewed after 1 s and stale after 2."""

    def __init__(self, wait_seconds: float = 30.0, void_seconds: float = 30.0, fetch_seconds: float = 30.0) -> None:
        self.now = 100.0
        self.reads = FakeReads()
        self.commands = FakeCommands()
        self.freshness = Freshness(
            self.reads,
            self.commands,
            now=lambda: self.now,
            wait_seconds=wait_seconds,
            void_seconds=void_seconds,
            fetch_seconds=fetch_seconds,
        )
        self.read_now()

    def read_now(self) -> None:
        self.reads.renew_at, self.reads.stale_at = self.now + 1, self.now + 2
        self.reads.came.set()

    @property
    def asked(self) -> int:
        return len(self.commands.calls)


async def test_under_steady_load_nobody_waits() -> None:
    stage = Stage()
    assert stage.freshness.is_fresh()
    await next_turn()
    assert stage.asked == 0
    stage.now += 1.5
    assert stage.freshness.is_fresh()
    assert stage.freshness.is_fresh()
    await eventually(lambda: stage.asked == 1, "newer ones are asked for, once")
    assert stage.commands.calls[0][:2] == (Kind.LOOK, b"")
    assert await stage.freshness.wait("stats.users")
    assert repr(stage.freshness) == "Freshness(well)"


async def test_what_never_ends_to_come_is_not_waited_for() -> None:
    stage = Stage()
    stage.reads.unheard = [lambda: None] * 10_000
    assert await stage.freshness.wait("stats.users")
    assert len(stage.reads.unheard) > 9_900


async def test_whoever_comes_after_a_pause_waits_for_newer_ones() -> None:
    stage = Stage()
    stage.now += 60
    waiting = [asyncio.create_task(stage.freshness.wait("stats.users")) for _ in range(3)]
    await eventually(lambda: stage.asked == 1, "they are asked for")
    await next_turn()
    assert not any(task.done() for task in waiting)
    stage.read_now()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert stage.asked == 1


async def test_nobody_waits_for_long_and_nobody_again_while_nothing_comes() -> None:
    stage = Stage(wait_seconds=0.02)
    stage.commands.error = BusUnavailableError("away")
    stage.now += 60
    assert await stage.freshness.wait("stats.users"), "what there is"
    assert repr(stage.freshness) == "Freshness(in vain)"
    stage.freshness._wait_seconds = 3600
    stage.now += 60
    assert await asyncio.wait_for(stage.freshness.wait("stats.users"), 30)
    stage.read_now()
    assert repr(stage.freshness) == "Freshness(well)"
    stage.now += 60
    waiting = asyncio.create_task(stage.freshness.wait("stats.users"))
    await next_turn()
    assert not waiting.done(), "one is worth waiting for again"
    stage.read_now()
    assert await waiting


async def test_requests_are_not_piled_up() -> None:
    stage = Stage()
    stage.now += 60
    for _ in range(10):
        stage.freshness.is_fresh()
        await next_turn()
    assert stage.asked == 1
    stage.now += PAUSE_SECONDS
    stage.freshness.is_fresh()
    await eventually(lambda: stage.asked == 2, "it is asked again")


async def test_what_was_handed_out_is_not_told() -> None:
    stage = Stage(wait_seconds=0, void_seconds=0.02)
    stage.reads.void.add("stats.users")
    assert not await stage.freshness.wait("stats.users")
    patient = Stage(wait_seconds=0)
    patient.reads.void.add("stats.users")
    waiting = asyncio.create_task(patient.freshness.wait("stats.users"))
    await eventually(lambda: patient.asked == 1, "they are hurried")
    patient.read_now()
    await next_turn()
    assert not waiting.done()
    patient.reads.void.clear()
    patient.reads.came.set()
    assert await waiting
    assert await patient.freshness.wait("stats.outbounds")


async def test_counters_of_inbounds_are_asked_for() -> None:
    stage = Stage()
    stage.freshness.ask_for_inbounds()
    await eventually(lambda: stage.asked == 1, "they are asked for")
    assert stage.commands.calls[0][:2] == (Kind.LOOK, INBOUNDS)


async def test_what_is_on_another_host_is_fetched_first() -> None:
    stage = Stage()
    stage.reads.behind.add("stats.users")
    waiting = asyncio.create_task(stage.freshness.wait("stats.users"))
    await eventually(lambda: stage.reads.wanted == ["stats.users"], "it is wanted")
    assert not waiting.done()
    stage.reads.behind.clear()
    stage.reads.came.set()
    assert await waiting
    assert stage.asked == 0, "it is fresh"


async def test_what_shows_what_was_handed_out_is_fetched_too() -> None:
    stage = Stage()
    stage.reads.void.add("stats.users")
    stage.reads.behind.add("stats.users")
    waiting = asyncio.create_task(stage.freshness.wait("stats.users"))
    await eventually(lambda: stage.reads.wanted, "it is wanted")
    stage.reads.void.clear()
    stage.reads.behind.clear()
    stage.reads.came.set()
    assert await waiting


async def test_where_it_does_not_come_the_one_before_is_told() -> None:
    stage = Stage(fetch_seconds=0.02)
    stage.reads.behind.add("stats.users")
    assert await stage.freshness.wait("stats.users")
