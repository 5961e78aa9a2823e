"""Workers and supervisor over a real Valkey: commands, replies, snapshots, log lines, and a Valkey that dies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import WORKER_FIELD, Command, Kind, Reply, encode_command
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import BLOB_BYTES, GROUP, Keys
from pgnode.bus.log_stream import LogReader, put_lines
from pgnode.bus.server import TAKE_MAX, CommandServer
from pgnode.errors import BusUnavailableError, DeadlineExceededError, UsersRefusedError
from pgnode.os_support.aio import end_tasks
from tests.support.polling import eventually, next_turn, pause
from tests.support.valkey import TestValkey, running_valkey

KEYS = Keys("test")


@pytest.fixture
async def valkey() -> AsyncIterator[TestValkey]:
    async with running_valkey() as server:
        yield server


@contextlib.asynccontextmanager
async def answering(url: str, answer: Callable[[Command], Reply]) -> AsyncIterator[list[list[Command]]]:
    """A supervisor that answers every command; gives the groups as they were taken."""
    server, redis, groups = CommandServer(url, KEYS), connect(url), list[list[Command]]()

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
    client = CommandClient(url, KEYS, name)
    client.start()
    try:
        yield client
    finally:
        await client.close()


def echo(command: Command) -> Reply:
    return Reply(body=command.body)


async def test_every_caller_gets_its_own_answer_and_nothing_is_left(valkey: TestValkey) -> None:
    async with answering(valkey.url, echo) as groups, client_of(valkey.url) as one, client_of(valkey.url, "w2") as two:
        bodies = [str(number).encode() for number in range(300)]
        calls = [(one if number % 2 else two).call(Kind.SYNC_USER, body, 5) for number, body in enumerate(bodies)]
        assert await asyncio.gather(*calls) == bodies
        assert sum(map(len, groups)) == 300
        assert len(groups) < 200, "commands travel in groups"
    redis = connect(valkey.url)
    assert await redis.xlen(KEYS.commands) == 0
    pending = await redis.xpending(KEYS.commands, GROUP)
    assert pending["pending"] == 0
    assert 0 < await redis.ttl(KEYS.replies("w1")) <= 120
    await redis.aclose()


async def test_large_bodies_go_by_a_key_of_their_own(valkey: TestValkey) -> None:
    body = bytes(BLOB_BYTES + 1)
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USERS, body, 5) == body


async def test_errors_cross_the_bus_as_they_are(valkey: TestValkey) -> None:
    refuse = Reply(error=UsersRefusedError("failed to update users: a: because"))
    async with answering(valkey.url, lambda _: refuse), client_of(valkey.url) as client:
        with pytest.raises(UsersRefusedError, match="failed to update users: a: because"):
            await client.call(Kind.SYNC_USER, b"", 5)


async def test_nobody_answers(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        with pytest.raises(DeadlineExceededError):
            await client.call(Kind.STOP, b"", 0.2)


async def test_what_was_not_acknowledged_is_delivered_to_the_next_supervisor(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"again", 10))
        first = CommandServer(valkey.url, KEYS)
        [command] = await eventually(first.take, "the command")
        assert await first.take() == [], "one supervisor does not take it twice"
        await first.close()
        async with answering(valkey.url, echo) as groups:
            assert await call == b"again"
        assert groups[0][0].id == command.id


async def test_a_malformed_command_is_dropped_and_holds_up_nobody(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    await redis.xadd(KEYS.commands, {"w": "w1", "x": "no_such_kind 1 "})
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USER, b"fine", 5) == b"fine"
    assert await redis.xlen(KEYS.commands) == 0
    await redis.aclose()


async def test_expiry_is_counted_on_the_servers_clock(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"", 0.3))
        server = CommandServer(valkey.url, KEYS)
        [command] = await eventually(server.take, "the command")
        assert not server.expired(command)
        await eventually(lambda: server.expired(command), "the command expires", 3)
        with pytest.raises(DeadlineExceededError):
            await call
        await server.close()


async def test_a_dead_store_is_told_within_three_seconds_and_comes_back(valkey: TestValkey) -> None:
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USER, b"before", 5) == b"before"
        valkey.kill()
        began = time.monotonic()
        with pytest.raises(BusUnavailableError):
            await client.call(Kind.SYNC_USER, b"away", 30)
        assert time.monotonic() - began < 3
        await valkey.start()

        async def works() -> bool:
            return await client.call(Kind.SYNC_USER, b"back", 5) == b"back"

        assert await eventually(works, "commands work again", errors=(BusUnavailableError,))


async def test_a_store_that_comes_back_empty_gets_its_group_again(valkey: TestValkey) -> None:
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        await client.call(Kind.SYNC_USER, b"before", 5)
        valkey.kill()
        valkey.empty()
        await valkey.start()

        async def works() -> bool:
            return await client.call(Kind.SYNC_USER, b"back", 5) == b"back"

        assert await eventually(works, "commands work again", 15, errors=(BusUnavailableError, DeadlineExceededError))


async def test_callers_waiting_when_the_store_dies_are_told(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"", 30))
        redis = connect(valkey.url)
        await eventually(lambda: redis.xlen(KEYS.commands), "the command is on its way")
        await redis.aclose()
        valkey.kill()
        began = time.monotonic()
        with pytest.raises(BusUnavailableError):
            await call
        assert time.monotonic() - began < 3


async def test_log_lines_are_followed_from_the_tail_on(valkey: TestValkey) -> None:
    redis, reader = connect(valkey.url), LogReader(valkey.url, KEYS)
    try:
        assert await reader.tail(5) == ("0-0", [])

        async def write(*lines: bytes) -> None:
            pipe = redis.pipeline(transaction=False)
            put_lines(pipe, KEYS, lines, 100)
            await pipe.execute()

        await write(*(b"old %d" % number for number in range(450)))
        last, lines = await reader.tail(3)
        assert lines == [b"old 447", b"old 448", b"old 449"]
        await write(b"new 1", b"\xff not UTF-8")
        async for _, batch in reader.follow(last):
            assert batch == [b"new 1", b"\xff not UTF-8"]
            break
    finally:
        await reader.close()
        await redis.aclose()


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


async def test_what_was_not_answered_comes_again_in_order_and_before_anything_new(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as one, client_of(valkey.url, "w2") as two:
        server, redis = CommandServer(valkey.url, KEYS), connect(valkey.url)
        calls = []
        for number in range(4):
            calls.append(asyncio.create_task((one, two)[number % 2].call(Kind.SYNC_CHUNKED, b"%d" % number, 20)))

            async def arrived(count: int = number + 1) -> bool:
                return int(await redis.xlen(KEYS.commands)) == count

            await eventually(arrived, "the command is on its way")
        taken = await eventually(server.take, "the commands")
        before = server.looks_again
        server.release(taken)
        server.lost_connection()
        assert (before, server.looks_again) == (False, True)
        again = await server.take()
        assert [command.body for command in again] == [b"0", b"1", b"2", b"3"]
        assert await server.take() == []
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
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


async def test_more_than_is_taken_at_once_comes_again_whole_and_in_order(valkey: TestValkey) -> None:
    server, redis = CommandServer(valkey.url, KEYS), connect(valkey.url)
    count = 2 * TAKE_MAX + 100
    pipe = redis.pipeline(transaction=False)
    for number in range(count):
        data = encode_command(Kind.SYNC_USER, 60.0, b"%d" % number, blob=False)
        pipe.xadd(KEYS.commands, {WORKER_FIELD: b"w1", b"id%d" % number: data})
    await pipe.execute()

    async def all_of(expected: int) -> list[Command]:
        found: list[Command] = []
        while len(found) < expected:
            found += await server.take()
        return found

    bodies = [b"%d" % number for number in range(count)]
    taken = await all_of(count)
    assert [command.body for command in taken] == bodies
    # The first ones are answered, nothing else is stored.
    answered = redis.pipeline(transaction=True)
    server.answer(answered, [(command, Reply()) for command in taken[:50]])
    await answered.execute()
    server.release(taken)
    server.lost_connection()
    again = await all_of(count - 50)
    assert [command.body for command in again] == bodies[50:]
    # The next supervisor gets them, too.
    await server.close()
    server = CommandServer(valkey.url, KEYS)
    assert [command.body for command in await all_of(count - 50)] == bodies[50:]
    await server.close()
    await redis.aclose()
