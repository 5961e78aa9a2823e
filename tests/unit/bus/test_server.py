"""The supervisor's side of the command stream over a real Valkey: what is taken, and what comes again."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from redis.asyncio import Redis

from pgnode.bus.commands import WORKER_FIELD, Command, Kind, Reply, encode_command
from pgnode.bus.connection import connect
from pgnode.bus.keys import GROUP
from pgnode.bus.protocol import PROTOCOL, worker_field
from pgnode.bus.server import TAKE_MAX, CommandServer
from pgnode.errors import DeadlineExceededError
from tests.support.bus_ends import KEYS, answering, client_of, echo, time_is_up
from tests.support.bus_proxy import bus_proxy
from tests.support.polling import eventually
from tests.support.valkey import TestValkey


async def test_what_was_not_acknowledged_is_delivered_to_the_next_supervisor(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"again", 10))
        first = CommandServer(valkey.url, KEYS, block_seconds=0.1)
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


async def test_commands_of_another_protocol_are_not_taken_and_told_once(
    valkey: TestValkey, capsys: pytest.CaptureFixture[str]
) -> None:
    redis, field = connect(valkey.url), worker_field(PROTOCOL + 1).decode()
    for number in range(2):
        await redis.xadd(KEYS.commands, {field: "east:7", f"a{number}": "sync_user 1 "})
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USER, b"fine", 5) == b"fine"
    assert await redis.xlen(KEYS.commands) == 0
    said = capsys.readouterr().out
    assert said.count("a worker speaks another protocol of the bus") == 1
    assert "east:7" in said
    await redis.aclose()


async def test_expiry_is_counted_on_the_servers_clock(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"", 20))
        server = CommandServer(valkey.url, KEYS, block_seconds=0.1)
        [command] = await eventually(server.take, "the command")
        assert not server.expired(command)
        assert server.expired_among([command]) == []
        # As if Redis had told the time so much later.
        server._clock_offset_ms += 21_000
        assert server.expired(command)
        assert server.expired_among([command, command]) == [command, command]
        time_is_up(client)
        with pytest.raises(DeadlineExceededError):
            await call
        await server.close()


async def test_what_was_not_answered_comes_again_in_order_and_before_anything_new(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as one, client_of(valkey.url, "w2") as two:
        server, redis = CommandServer(valkey.url, KEYS, block_seconds=0.1), connect(valkey.url)
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


async def test_more_than_is_taken_at_once_comes_again_whole_and_in_order(valkey: TestValkey) -> None:
    server, redis = CommandServer(valkey.url, KEYS, block_seconds=0.1), connect(valkey.url)
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
    server = CommandServer(valkey.url, KEYS, block_seconds=0.1)
    assert [command.body for command in await all_of(count - 50)] == bodies[50:]
    await server.close()
    await redis.aclose()


@pytest.mark.parametrize("cut", ["at the delivery", "before it"])
async def test_what_is_delivered_to_a_connection_that_has_just_died_is_taken_again(
    valkey: TestValkey, cut: str
) -> None:
    """Redis keeps its end of each, so it goes on delivering there; callers wait for a minute."""
    async with (
        bus_proxy(valkey.url) as proxy,
        answering(proxy.url, echo) as groups,
        client_of(valkey.url) as client,
    ):
        for number in range(20):
            body = b"body %d;" % number
            proxy.asked = b""
            await eventually(lambda: b"XREADGROUP" in proxy.asked, "commands are awaited")
            if cut == "before it":
                proxy.cut_callers()
            else:
                proxy.cut_at = body
            async with asyncio.timeout(30):
                assert await client.call(Kind.SYNC_USER, body, 60) == body
        taken = [command.body for group in groups for command in group]
        assert taken == [b"body %d;" % number for number in range(20)]
        assert proxy.cuts == (20 if cut == "at the delivery" else 0)


async def test_strays_are_found_also_when_no_connection_was_lost(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USER, b"first", 10) == b"first"
        data = encode_command(Kind.SYNC_USER, 60.0, b"stray", blob=False)
        pipe = redis.pipeline(transaction=True)
        pipe.xadd(KEYS.commands, {WORKER_FIELD: b"w1", b"stray": data})
        pipe.xreadgroup(GROUP, "supervisor", {KEYS.commands: ">"})
        await pipe.execute()

        async def answered() -> bool:
            return int(await redis.xlen(KEYS.commands)) == 0

        await eventually(answered, "the stray was taken and answered", 20)
    await redis.aclose()


async def test_what_is_answered_while_strays_are_counted_is_none(
    valkey: TestValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"once", 20))
        server = CommandServer(valkey.url, KEYS, block_seconds=0.1)
        taken = await eventually(server.take, "the command")
        # Looked for at every turn.
        server.lost_connection()
        assert await server.take() == []
        execute = server._reader.execute

        async def answered_meanwhile(*words: str) -> object:
            found = await execute(*words)
            if words[0] == "XPENDING":
                server.release(taken)
            return found

        monkeypatch.setattr(server._reader, "execute", answered_meanwhile)
        with structlog.testing.capture_logs() as logs:
            assert await server.take() == []
        assert logs == []
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await server.close()


async def test_replies_have_an_end_also_in_a_redis_that_was_emptied(valkey: TestValkey) -> None:
    redis, key = connect(valkey.url), KEYS.replies("w1")
    async with client_of(valkey.url) as client, answering(valkey.url, echo) as groups:
        assert await client.call(Kind.SYNC_USER, b"1", 20) == b"1"
        assert groups
        await redis.flushall()
        # As an answer that was on its way: the stream begins anew.
        await redis.xadd(key, {"x": "y"})
        assert await client.call(Kind.SYNC_USER, b"2", 20) == b"2"
        await eventually(lambda: _ends(redis, key), "the stream of replies has an end")
    await redis.aclose()


async def _ends(redis: Redis, key: str) -> bool:
    return bool(await redis.ttl(key) > 0)
