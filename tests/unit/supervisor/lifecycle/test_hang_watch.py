"""The watch over a core that does not answer: what it asks, when it has the core ended, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pgnode.bus.commands import Kind
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.lifecycle.hang_watch import HangWatch
from pgnode.supervisor.lifecycle.states import State
from pgnode.testing.clock import HurryingClock, run_ready
from pgnode.testing.fake_core import SILENT
from pgnode.xray.config.listeners import Listener
from pgnode.xray.process.signs_of_life import MAX_ASKED
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, user


class Watched:
    """A node whose core may be silent; each step of the clock is a look."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        #: What inbounds do.
        self.taken: bool | None = False
        self.asked: list[Sequence[Listener]] = []
        self.watch = HangWatch(
            stage.core, stage.node, limit_seconds=60, call_seconds=5, ask=self._ask, clock=stage.clock
        )

    def _ask(self, _pid: int, listeners: Sequence[Listener]) -> bool | None:
        self.asked.append(listeners)
        return self.taken

    def hang(self) -> None:
        self.stage.fail_call("GetSysStats", *[SILENT] * 1000)

    def go_on(self) -> None:
        assert self.stage.core.api is not None
        self.stage.core.api.channel.errors.clear()

    async def looks(self, count: int, step: float = 5.0) -> None:
        for _ in range(count):
            await self.stage.clock.advance(step)
            await self.watch.look()
        await self.stage.at_rest()


@pytest.fixture
async def watched(stage: Stage) -> Watched:
    await stage.start(config_of("a", "b"), user("alice", "a"))
    return Watched(stage)


async def test_a_core_that_hangs_is_replaced_with_its_users(watched: Watched) -> None:
    stage, first = watched.stage, watched.stage.core.running
    watched.hang()
    await watched.looks(12)
    assert stage.core.running is first, "55 s"
    await watched.looks(1)
    assert "kill" in stage.core.done
    await stage.pause(0.0)
    assert (stage.state, stage.told.core_run, stage.told.core_hangs) == (State.RUNNING, 2, 1)
    assert "alice" in stage.core.configs[-1]
    assert "store" in stage.traffic.done, "what was counted is kept"
    assert [str(listener.kind) for listener in watched.asked[0]] == ["tcp", "tcp"]
    await watched.looks(30)
    assert stage.told.core_run == 2


async def test_a_core_that_goes_on_in_time_is_not_touched(watched: Watched) -> None:
    first = watched.stage.core.running
    for _ in range(3):
        watched.hang()
        await watched.looks(11)
        watched.go_on()
        await watched.looks(1)
    assert watched.stage.core.running is first
    assert not watched.stage.life.now.hangs


@pytest.mark.parametrize("taken", [True, None])
async def test_a_core_of_which_only_the_api_hangs_is_not_touched(watched: Watched, taken: bool | None) -> None:
    watched.hang()
    watched.taken = taken
    await watched.looks(40)
    assert "kill" not in watched.stage.core.done


async def test_a_supervisor_that_was_stopped_does_not_count_that(watched: Watched) -> None:
    watched.hang()
    await watched.looks(10)
    await watched.looks(5, step=120.0)
    assert "kill" not in watched.stage.core.done


async def test_a_lingering_core_that_hangs_is_ended_and_not_brought_back(watched: Watched) -> None:
    stage = watched.stage
    await stage.stop()
    assert stage.state is State.LINGERING
    watched.hang()
    # Its time is over sooner by default.
    for _ in range(14):
        stage.clock.seconds += 5
        await watched.watch.look()
    await stage.at_rest()
    assert (stage.state, stage.core.running) == (State.IDLE, None)


async def test_a_core_that_went_on_while_somebody_had_the_lock_is_not_touched(watched: Watched) -> None:
    stage = watched.stage
    watched.hang()
    await watched.looks(12)
    async with stage.node.core_lock:
        stage.clock.seconds += 5
        look = asyncio.create_task(watched.watch.look())
        await stage.clock.advance(0.0)
        watched.go_on()
    await look
    assert "kill" not in stage.core.done


async def test_a_core_that_was_exchanged_meanwhile_is_not_touched(watched: Watched) -> None:
    stage = watched.stage
    watched.hang()
    await watched.looks(12)
    await stage.do(Kind.STOP)
    await stage.node.reset()
    await watched.looks(5)
    assert "kill" not in stage.core.done
    assert "silent since None" in repr(watched.watch)


async def test_inbounds_take_turns_where_there_are_many(stage: Stage) -> None:
    tags = [f"in{number}" for number in range(MAX_ASKED + 3)]
    await stage.start(config_of(*tags))
    watched = Watched(stage)
    watched.hang()
    await watched.looks(3)
    assert all(len(listeners) == MAX_ASKED for listeners in watched.asked)
    assert len({listener for listeners in watched.asked for listener in listeners}) == len(tags)


async def test_the_watch_looks_again_and_again(stage: Stage) -> None:
    await stage.start(config_of("a"))
    clock = HurryingClock()
    task = asyncio.create_task(HangWatch(stage.core, stage.node, limit_seconds=60, call_seconds=5, clock=clock).run())
    await run_ready()
    assert len(clock.pauses) > 2
    await end_tasks([task])
