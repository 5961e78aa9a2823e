"""Both ends of the command stream for tests: a supervisor that answers everything, and a worker's client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Command, Reply
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.server import CommandServer
from pgnode.bus.waits import ClientWaits
from pgnode.os_support.aio import end_tasks
from tests.support.polling import pause

KEYS = Keys("test")

#: For clients in tests that wait for an end of patience.
SHORT_WAITS = ClientWaits(
    answer_seconds=0.05, away_seconds=0.3, retry_seconds=0.02, block_seconds=0.1, sweep_seconds=0.05, lost_seconds=0.1
)


@contextlib.asynccontextmanager
async def answering(url: str, answer: Callable[[Command], Reply]) -> AsyncIterator[list[list[Command]]]:
    """A supervisor that answers every command; gives the groups as they were taken."""
    server, redis, groups = CommandServer(url, KEYS, block_seconds=0.1), connect(url), list[list[Command]]()

    async def serve() -> None:
        while True:
            try:
                group = await server.take()
                if group:
                    groups.append(group)
                    pipe = redis.pipeline(transaction=True)
                    server.answer(pipe, [(command, answer(command)) for command in group])
                    await pipe.execute()
                    server.release(group)
            except BUS_ERRORS:
                server.lost_connection()
                await pause()

    task = asyncio.create_task(serve())
    try:
        yield groups
    finally:
        await end_tasks([task])
        await server.close()
        await redis.aclose()


@contextlib.asynccontextmanager
async def client_of(url: str, name: str = "w1") -> AsyncIterator[CommandClient]:
    """A worker's client with little patience, which is started."""
    client = CommandClient(url, KEYS, name, waits=SHORT_WAITS)
    client.start()
    try:
        yield client
    finally:
        await client.close()


def time_is_up(client: CommandClient) -> None:
    """Have all callers waited for as long as they would; the client finds out at its next look."""
    for commands in client._pending.sent_before(float("inf")).values():
        for command in commands:
            command.ends_at = 0.0


def echo(command: Command) -> Reply:
    """Answer with what came."""
    return Reply(body=command.body)
