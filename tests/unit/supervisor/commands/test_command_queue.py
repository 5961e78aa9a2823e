"""A queue that is emptied at once."""

from __future__ import annotations

import asyncio

from pgnode.bus.commands import Command, Kind
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.commands.command_queue import CommandQueue
from tests.support.polling import next_turn


def _command(number: int) -> Command:
    return Command(f"{number}-0", str(number), Kind.SYNC_USER, "w", 1000, b"")


async def test_everything_that_waits_is_taken_in_order() -> None:
    queue, commands = CommandQueue(), [_command(number) for number in range(3)]
    queue.put(commands[:2])
    queue.put(commands[2:])
    assert (len(queue), repr(queue)) == (3, "CommandQueue(3 waiting)")
    assert await queue.take() == commands
    assert queue.take_now() == []


async def test_whoever_takes_waits_for_something() -> None:
    queue = CommandQueue()
    taking = asyncio.create_task(queue.take())
    queue.put([])
    await next_turn()
    assert not taking.done()
    queue.put([_command(1)])
    assert [command.id for command in await taking] == ["1"]


async def test_nothing_is_lost_with_a_wait_that_is_given_up() -> None:
    queue = CommandQueue()
    taking = asyncio.create_task(queue.take())
    await next_turn()
    queue.put([_command(1)])
    await end_tasks([taking])
    assert [command.id for command in queue.take_now()] == ["1"]
