"""Tasks that end although a cancellation got lost, and attempts that are repeated."""

from __future__ import annotations

import asyncio

import pytest

from pgnode.os_support.aio import end_tasks, retry
from tests.support.polling import next_turn


async def test_tasks_that_swallow_a_cancellation_are_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    async def obedient() -> None:
        await asyncio.Event().wait()

    done = asyncio.create_task(next_turn())
    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(obedient()), done]
    await done
    await end_tasks(tasks, again_seconds=0.01)
    assert all(task.done() for task in tasks)
    assert not done.cancelled()
    await end_tasks([])


async def test_an_attempt_is_repeated_until_it_works() -> None:
    failures: list[BaseException] = [ValueError("one"), KeyError("two")]
    seen: list[BaseException] = []

    async def attempt() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    assert await retry(attempt, (ValueError, KeyError), pause_seconds=0, on_error=seen.append) == "done"
    assert [type(error) for error in seen] == [ValueError, KeyError]


async def test_other_errors_are_passed_on() -> None:
    async def attempt() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await retry(attempt, (ValueError,), pause_seconds=0)


async def test_the_caller_sets_the_deadline() -> None:
    async def attempt() -> None:
        raise ValueError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await retry(attempt, (ValueError,), pause_seconds=0)
