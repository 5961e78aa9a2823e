"""Tasks of a worker that fail begin again."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from pgnode.os_support.aio import end_tasks
from pgnode.os_support.lasting import Failures, keep_going
from pgnode.testing.clock import HurryingClock


async def test_what_fails_or_ends_begins_again_and_is_counted() -> None:
    outcomes = iter([RuntimeError("can't start new thread"), None, KeyError("key")])
    failures, well = Failures(), asyncio.Event()

    async def work() -> None:
        try:
            outcome = next(outcomes)
        except StopIteration:
            well.set()
            await asyncio.Event().wait()
        if outcome is not None:
            raise outcome

    with capture_logs() as logs:
        task = asyncio.create_task(keep_going("keys", work, failures=failures, clock=HurryingClock()))
        await asyncio.wait_for(well.wait(), 10)
    assert failures.count == 3
    assert "3" in repr(failures)
    assert [(entry["event"], entry["task"]) for entry in logs] == [
        ("task failed", "keys"),
        ("task ended", "keys"),
        ("task failed", "keys"),
    ]
    assert not task.done()
    await end_tasks([task])


@pytest.mark.parametrize(
    ("lasts_seconds", "pauses"), [(0.0, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]), (31.0, [1.0, 1.0, 1.0])]
)
async def test_pauses_grow_until_it_has_gone_on_for_long(lasts_seconds: float, pauses: list[float]) -> None:
    clock, begun, enough = HurryingClock(), 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        if begun == len(pauses):
            enough.set()
            await asyncio.Event().wait()
        begun += 1
        clock.seconds += lasts_seconds
        raise OSError(11, "no room")

    with capture_logs():
        task = asyncio.create_task(keep_going("keys", work, failures=Failures(), clock=clock))
        await asyncio.wait_for(enough.wait(), 10)
    assert clock.pauses == pauses
    await end_tasks([task])
