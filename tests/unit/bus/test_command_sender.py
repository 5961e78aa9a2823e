"""How commands get into the stream: in groups, large bodies by keys of their own."""

from __future__ import annotations

import asyncio

from pgnode.bus.command_sender import CommandSender
from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.connection import connect
from pgnode.bus.keys import BLOB_BYTES
from pgnode.bus.pending import PendingCommand, PendingCommands
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.server import CommandServer
from pgnode.os_support.aio import end_tasks
from tests.support.bus_ends import KEYS, answering, client_of, echo
from tests.support.polling import eventually, next_turn
from tests.support.valkey import TestValkey


async def test_large_bodies_go_by_a_key_of_their_own(valkey: TestValkey) -> None:
    body = bytes(BLOB_BYTES + 1)
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USERS, body, 5) == body


async def test_single_changes_gather_while_others_are_under_way(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        server, redis = CommandServer(valkey.url, KEYS), connect(valkey.url)
        calls = [asyncio.create_task(client.call(Kind.SYNC_USER, b"first", 10))]
        [first] = await eventually(server.take, "the first one alone")
        calls += [asyncio.create_task(client.call(Kind.SYNC_USER, b"%d" % number, 10)) for number in range(20)]
        # Anything else waits for nobody, and takes along what came before it.
        calls.append(asyncio.create_task(client.call(Kind.STOP, b"", 10)))
        gathered = await eventually(server.take, "the others")
        [stop] = gathered[20:] or await eventually(server.take, "the last one")
        del gathered[20:]
        assert [command.body for command in gathered] == [b"%d" % number for number in range(20)]
        assert stop.kind is Kind.STOP
        assert len({command.entry_id for command in gathered}) == 1
        assert stop.entry_id not in {command.entry_id for command in gathered}
        taken = [first, *gathered, stop]
        pipe = redis.pipeline(transaction=True)
        server.answer(pipe, [(command, Reply(body=command.body)) for command in taken])
        await pipe.execute()
        assert await asyncio.gather(*calls) == [command.body for command in taken]
        await server.close()
        await redis.aclose()


async def test_a_body_of_its_own_goes_when_it_was_answered(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    async with answering(valkey.url, lambda _: Reply()), client_of(valkey.url) as client:
        await client.call(Kind.SYNC_USERS, bytes(BLOB_BYTES + 1), 5)
        assert [key async for key in redis.scan_iter("test:blob:*")] == []
    await redis.aclose()


async def test_callers_that_were_answered_together_go_together_again(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        server, redis = CommandServer(valkey.url, KEYS), connect(valkey.url)

        async def answer(commands: list[Command]) -> None:
            pipe = redis.pipeline(transaction=True)
            server.answer(pipe, [(command, Reply(body=command.body)) for command in commands])
            await pipe.execute()
            server.release(commands)

        async def ask(number: int, times: int) -> None:
            for _ in range(times):
                await client.call(Kind.SYNC_USER, b"%d" % number, 10)
                for _ in range(number):  # one after the other, as their connections are read
                    await next_turn()

        calls = [asyncio.create_task(ask(number, 2)) for number in range(8)]
        groups, left = [], 16
        while left:
            groups.append(await server.take())
            await answer(groups[-1])
            left -= len(groups[-1])
        await asyncio.gather(*calls)
        assert len(groups) <= 4, "the quickest went alone"
        # One alone waits for the others no longer than a moment.
        calls = [asyncio.create_task(ask(9, 1))]
        alone = await server.take()
        assert [command.body for command in alone] == [b"9"]
        await answer(alone)
        await asyncio.gather(*calls)
        await server.close()
        await redis.aclose()


async def test_the_supervisor_has_what_is_left_of_the_callers_time(valkey: TestValkey) -> None:
    redis, server, pending = PipelinedRedis(valkey.url), CommandServer(valkey.url, KEYS), PendingCommands()
    sender = CommandSender(redis, KEYS, "worker", pending)
    loop = asyncio.get_running_loop()
    for name, left_seconds in ((b"late", -1.0), (b"in time", 60.0)):
        answer_by = loop.time() + left_seconds
        sender.add(PendingCommand(name, Kind.STOP, b"", 90, answer_by, answer_by, loop.create_future()))
    sending = asyncio.create_task(sender.run())
    late, in_time = await eventually(server.take, "both")
    assert late.budget_ms == 0
    assert 0 < in_time.budget_ms <= 60_000
    await end_tasks([sending])
    redis.drop()
    await server.close()
