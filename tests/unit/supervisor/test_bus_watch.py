"""A supervisor whose connections to the bus are wedged, and one whose bus is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from pgnode.errors import TaskFailedError
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.bus_watch import BusWatch, Ping
from tests.support.polling import eventually


class Bus:
    """Answers, refuses, or hangs; counts."""

    def __init__(self, answers: bool | None) -> None:
        self.answers = answers
        self.asked = 0

    async def ping(self) -> None:
        self.asked += 1
        if self.answers is None:
            await asyncio.Event().wait()
        if not self.answers:
            raise ConnectionError


def watch(ping: Ping, ping_anew: Ping, looked_at: Callable[[], float] = time.monotonic) -> BusWatch:
    return BusWatch(ping, ping_anew, looked_at, interval_seconds=0.001, answer_seconds=0.05)


@pytest.mark.parametrize("own", [None, False])
async def test_a_bus_that_answers_others_alone_is_wedged(own: bool | None) -> None:
    with pytest.raises(TaskFailedError, match="the bus answers others"):
        await watch(Bus(own).ping, Bus(True).ping).run()


async def test_so_is_one_of_which_no_command_is_taken() -> None:
    own = Bus(True)
    with pytest.raises(TaskFailedError, match="the bus answers others"):
        await watch(own.ping, Bus(True).ping, lambda: time.monotonic() - 3600).run()
    assert own.asked == 0


@pytest.mark.parametrize(("own", "anew"), [(True, True), (False, False), (True, False)])
async def test_a_bus_that_is_well_or_away_is_not(own: bool, anew: bool) -> None:
    first, second = Bus(own), Bus(anew)
    found = watch(first.ping, second.ping)
    assert repr(found) == "BusWatch(every 0.001 s)"
    running = asyncio.create_task(found.run())
    await eventually(lambda: first.asked > 10, "it looks again and again")
    assert not running.done()
    await end_tasks([running])


async def test_one_that_is_wedged_for_a_moment_is_not() -> None:
    own = Bus(False)

    async def anew() -> None:
        own.answers = own.asked % 3 == 2

    running = asyncio.create_task(watch(own.ping, anew).run())
    await eventually(lambda: own.asked > 20, "it looks again and again")
    assert not running.done()
    await end_tasks([running])
