"""Redis is a bus that may lose everything at any moment: commands are asked again, within their callers' time, and done once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pgnode.bus.commands import Command, Kind, Reply, encode_command
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import BLOB_BYTES, GROUP
from pgnode.bus.server import CommandServer
from pgnode.errors import BusUnavailableError, DeadlineExceededError, NodeError
from pgnode.os_support.aio import end_tasks
from tests.support.bus_ends import KEYS, client_of, time_is_up
from tests.support.polling import eventually, next_turn, pause
from tests.support.valkey import TestValkey


class Supervisor:
    """Takes commands, and answers when it is let."""

    def __init__(self, url: str) -> None:
        self.server = CommandServer(url, KEYS, block_seconds=0.1)
        self.redis = connect(url)
        self.taken: list[Command] = []
        self.answers_now = asyncio.Event()

    async def serve(self) -> None:
        while True:
            try:
                commands = await self.server.take()
                self.taken += commands
                if commands:
                    await self.answers_now.wait()
                    await self.answer(commands)
            except BUS_ERRORS:
                self.server.lost_connection()
                await pause()

    async def answer(self, commands: list[Command]) -> None:
        pipe = self.redis.pipeline(transaction=True)
        self.server.answer(pipe, [(command, Reply(body=command.body[:10])) for command in commands])
        try:
            await pipe.execute()
        finally:
            self.server.release(commands)


@contextlib.asynccontextmanager
async def supervised(url: str) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(url)
    task = asyncio.create_task(supervisor.serve())
    try:
        yield supervisor
    finally:
        await end_tasks([task])
        await supervisor.server.close()
        await supervisor.redis.aclose()


async def waiting(valkey: TestValkey, count: int) -> None:
    redis = connect(valkey.url)

    async def arrived() -> bool:
        return int(await redis.xlen(KEYS.commands)) == count

    await eventually(arrived, f"{count} entries wait")
    await redis.aclose()


async def flush(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    await redis.flushall()
    await redis.aclose()


async def delete(valkey: TestValkey, *keys: str) -> None:
    redis = connect(valkey.url)
    await redis.delete(*keys)
    await redis.aclose()


@pytest.mark.parametrize("body", [b"small", bytes(BLOB_BYTES + 1)], ids=["small", "of its own"])
@pytest.mark.parametrize("kind", [Kind.SYNC_USER, Kind.SYNC_USERS, Kind.START])
async def test_a_command_that_nobody_had_taken_is_asked_again(valkey: TestValkey, kind: Kind, body: bytes) -> None:
    async with client_of(valkey.url) as client:
        calls = [asyncio.create_task(client.call(kind, body, 20)) for _ in range(3)]
        await eventually(lambda: client._pending.sent_before(float("inf")), "they were sent")
        await flush(valkey)
        async with supervised(valkey.url) as supervisor:
            supervisor.answers_now.set()
            async with asyncio.timeout(10):
                assert await asyncio.gather(*calls) == [body[:10]] * 3
            assert len({command.id for command in supervisor.taken}) == len(supervisor.taken) == 3


async def test_answers_that_somebody_else_put_something_in_the_place_of(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    async with client_of(valkey.url) as client, supervised(valkey.url) as supervisor:
        supervisor.answers_now.set()
        await redis.set(KEYS.replies("w1"), "odd")

        async def is_gone() -> bool:
            return await redis.type(KEYS.replies("w1")) != b"string"

        await eventually(is_gone, "the worker removed it")
        async with asyncio.timeout(10):
            assert await client.call(Kind.SYNC_USER, b"later", 20) == b"later"
    await redis.aclose()


async def test_a_store_that_is_started_anew_and_empty_costs_callers_a_moment(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"waiting", 20))
        await waiting(valkey, 1)
        valkey.kill()
        valkey.empty()
        later = asyncio.create_task(client.call(Kind.STOP, b"asked meanwhile", 20))
        await next_turn()
        await valkey.start()
        async with supervised(valkey.url) as supervisor:
            supervisor.answers_now.set()
            async with asyncio.timeout(10):
                assert [await call, await later] == [b"waiting", b"asked mean"]


async def test_what_is_being_done_when_the_store_is_emptied_is_not_done_twice(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client, supervised(valkey.url) as supervisor:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"once", 20))
        await eventually(lambda: supervisor.taken, "it is being done")
        await flush(valkey)
        await waiting(valkey, 1)  # it was asked again

        async def second_taker() -> list[Command]:
            return await supervisor.server.take()

        looking = asyncio.create_task(second_taker())
        supervisor.answers_now.set()
        async with asyncio.timeout(10):
            assert await call == b"once"
            assert await looking == []
        assert len(supervisor.taken) == 1
        await waiting(valkey, 0)
        pending = await supervisor.redis.xpending(KEYS.commands, GROUP)
        assert pending["pending"] == 0


@pytest.mark.parametrize("what", ["replies", "commands", "group", "everything"])
async def test_whatever_vanishes_the_caller_is_answered(valkey: TestValkey, what: str) -> None:
    async with client_of(valkey.url) as client, supervised(valkey.url) as supervisor:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"body", 20))
        await eventually(lambda: supervisor.taken, "it was taken")
        if what == "replies":
            # The answer is given, and gone before anybody read it.
            pipe = supervisor.redis.pipeline(transaction=True)
            supervisor.server.answer(pipe, [(supervisor.taken[0], Reply(body=b"unread"))])
            pipe.delete(KEYS.replies("w1"))
            await pipe.execute()
        elif what == "commands":
            await delete(valkey, KEYS.commands)
        elif what == "group":
            await supervisor.redis.xgroup_destroy(KEYS.commands, GROUP)
        else:
            await flush(valkey)
        supervisor.answers_now.set()
        async with asyncio.timeout(15):
            assert await call == b"body"
            assert await client.call(Kind.SYNC_USER, b"next", 10) == b"next"


@pytest.mark.parametrize("body", [b"small", bytes(BLOB_BYTES + 1)], ids=["small", "of its own"])
async def test_what_was_done_is_answered_as_before_when_it_comes_again(valkey: TestValkey, body: bytes) -> None:
    server, redis = CommandServer(valkey.url, KEYS, block_seconds=0.1), connect(valkey.url)
    async with client_of(valkey.url) as client:
        calls = [
            asyncio.create_task(client.call(Kind.STOP, b"other", 20)),
            asyncio.create_task(client.call(Kind.SYNC_USERS, body, 20)),
        ]
        taken: list[Command] = []
        while len(taken) < 2:
            taken += await server.take()
        # Answered, stored, and the answers gone before anybody read them.
        pipe = redis.pipeline(transaction=True)
        server.answer(pipe, [(command, Reply(body=b"as before")) for command in taken])
        pipe.delete(KEYS.replies("w1"))
        await pipe.execute()
        server.release(taken)
        async with asyncio.timeout(15):
            while not all(call.done() for call in calls):
                assert await server.take() == []
        assert [await call for call in calls] == [b"as before"] * 2
        assert await redis.ttl(KEYS.replies("w1")) > 0, "the stream began anew, and has an end"
        await waiting(valkey, 0)
        assert [key async for key in redis.scan_iter("test:blob:*")] == []
        pending = await redis.xpending(KEYS.commands, GROUP)
        assert pending["pending"] == 0
    await server.close()
    await redis.aclose()


async def test_what_could_not_be_done_is_done_when_it_comes_again(valkey: TestValkey) -> None:
    server, redis = CommandServer(valkey.url, KEYS, block_seconds=0.1), connect(valkey.url)
    entry: Any = {"w": "w1", "one": encode_command(Kind.SYNC_USER, 60, b"1", blob=False)}
    entry["two"] = encode_command(Kind.SYNC_USER, 60, b"2", blob=False)
    await redis.xadd(KEYS.commands, entry)
    [one, two] = await eventually(server.take, "both are taken")
    pipe = redis.pipeline(transaction=True)
    server.answer(pipe, [(one, Reply(error=BusUnavailableError("not now"))), (two, Reply(body=b"done"))])
    await pipe.execute()
    server.release([one, two])
    await redis.delete(KEYS.replies("w1"))
    await redis.xadd(KEYS.commands, entry)
    # The entry stays for the one that is done now.
    assert [command.id for command in await eventually(server.take, "one is taken again")] == ["one"]
    answers: Any = await redis.xread({KEYS.replies("w1"): "0"})
    assert [fields for _, fields in answers[0][1]] == [{b"two": b" done"}]
    assert await redis.xlen(KEYS.commands) == 1
    await server.close()
    await redis.aclose()


async def test_a_body_that_vanishes_is_sent_again(valkey: TestValkey) -> None:
    body = b"0123456789" * (BLOB_BYTES // 10 + 1)
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USERS, body, 20))
        await waiting(valkey, 1)
        redis = connect(valkey.url)
        await redis.delete(*[key async for key in redis.scan_iter("test:blob:*")])
        await redis.aclose()
        async with supervised(valkey.url) as supervisor:
            supervisor.answers_now.set()
            async with asyncio.timeout(10):
                assert await call == body[:10]


async def test_answers_of_a_store_whose_clock_is_behind_are_read(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client, supervised(valkey.url) as supervisor:
        supervisor.answers_now.set()
        assert await client.call(Kind.SYNC_USER, b"before", 5) == b"before"
        # As if the answers so far had come from a clock that is far ahead.
        client._reader._last = f"{2**45}-0"
        async with asyncio.timeout(10):
            assert await client.call(Kind.SYNC_USER, b"after", 8) == b"after"


async def test_a_store_that_stays_empty_of_a_supervisor_is_no_reason_to_wait_for_ever(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"", 20))
        await waiting(valkey, 1)
        await flush(valkey)
        await waiting(valkey, 1)
        time_is_up(client)
        with pytest.raises(DeadlineExceededError, match="within 20 s"):
            await call


async def test_without_a_store_callers_are_told_soon(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        valkey.kill()
        results = await asyncio.gather(
            *(client.call(Kind.SYNC_USER, b"", 30) for _ in range(20)), return_exceptions=True
        )
        assert {type(result) for result in results} == {BusUnavailableError}
        # Who asks while that is known is told, too.
        with pytest.raises(NodeError, match="the node's Redis cannot be reached, try again"):
            await client.call(Kind.STOP, b"", 30)
        await valkey.start()
        async with supervised(valkey.url) as supervisor:
            supervisor.answers_now.set()

            async def works() -> bool:
                return await client.call(Kind.SYNC_USER, b"back", 5) == b"back"

            await eventually(works, "commands work again", errors=(BusUnavailableError,))


async def test_a_caller_that_has_gone_is_not_asked_for_again(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"", 20))
        await waiting(valkey, 1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await flush(valkey)
        async with supervised(valkey.url) as supervisor:
            supervisor.answers_now.set()
            assert await client.call(Kind.STOP, b"other", 10) == b"other"
            assert [command.kind for command in supervisor.taken] == [Kind.STOP]
