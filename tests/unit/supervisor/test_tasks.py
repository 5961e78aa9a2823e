"""Tasks that fail begin again; the node goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pgnode.errors import ChildFailedError, TaskFailedError
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.tasks import CHANGES, FAILURES_MAX, LOGS, TASKS, TaskRunner, TaskSpec
from pgnode.testing.clock import HurryingClock

SPEC = TaskSpec("counting", "counts")


def test_the_table_names_each_task_once() -> None:
    assert len({spec.name for spec in TASKS}) == len(TASKS)
    assert all(spec.duty for spec in TASKS)


async def test_what_fails_or_ends_begins_again_after_a_pause() -> None:
    clock = HurryingClock()
    runner = TaskRunner(clock)
    outcomes = iter([RuntimeError("unexpected"), OSError(28, "no space"), None, KeyError("key")])
    well = asyncio.Event()

    async def work() -> None:
        try:
            outcome = next(outcomes)
        except StopIteration:
            well.set()
            await asyncio.Event().wait()
        if outcome is not None:
            raise outcome

    (task,) = runner.start({SPEC: work})
    await asyncio.wait_for(well.wait(), 10)
    assert task.get_name() == "counting"
    assert not task.done()
    assert runner.failures == {"counting": 4}
    assert "counting" in repr(runner)
    assert len(clock.pauses) == 4
    assert min(clock.pauses) > 0, "others get their turn"
    await end_tasks([task])


async def test_what_only_an_operator_can_mend_ends_the_task() -> None:
    async def work() -> None:
        raise ChildFailedError("no such thing")

    (task,) = TaskRunner().start({SPEC: work})
    with pytest.raises(ChildFailedError, match="no such thing"):
        await task


async def test_a_vital_task_that_fails_again_and_again_is_no_use() -> None:
    async def work() -> None:
        raise RuntimeError("for ever")

    clock = HurryingClock()
    runner = TaskRunner(clock)
    (task,) = runner.start({replace(SPEC, vital=True): work})
    with pytest.raises(TaskFailedError, match="the task counting fails again and again"):
        await task
    assert runner.failures == {"counting": FAILURES_MAX + 1}


def test_the_node_is_no_use_without_some_of_them() -> None:
    assert CHANGES.vital
    assert not LOGS.vital
