"""Log lines over a real Valkey: what follows, and a Valkey that goes and comes back."""

from __future__ import annotations

import asyncio

from pgnode.bus.connection import connect
from pgnode.bus.keys import LOG_TTL_SECONDS, Keys
from pgnode.bus.log_batches import LogBatch
from pgnode.bus.log_stream import LogReader, node_lines, put_batches, put_node_lines
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.os_support.aio import end_tasks
from tests.support.polling import next_turn
from tests.support.valkey import TestValkey

KEYS = Keys("test")


def fields_of(batch: LogBatch) -> list[bytes | str | int]:
    """What its entry has."""
    return [part for pair in batch.fields().items() for part in pair]


async def test_entries_are_followed_from_the_newest_on(valkey: TestValkey) -> None:
    redis, reader = PipelinedRedis(valkey.url), LogReader(valkey.url, KEYS)
    assert repr(reader) == "LogReader(test:log)"
    try:
        assert await reader.newest() == "0-0"
        assert put_batches(KEYS, []) == []
        await redis.pipeline(put_batches(KEYS, [LogBatch("one", 1, b"old"), LogBatch("one", 2, b"old 2")]))
        last = await reader.newest()
        assert 0 < await redis.execute("TTL", KEYS.log) <= LOG_TTL_SECONDS
        new = LogBatch("one", 3, b"new\n\xff not UTF-8")
        await redis.execute("XADD", KEYS.log, "*", "lines", b"of another version")
        await redis.pipeline(put_batches(KEYS, [new, LogBatch("one", 5, b"replay", "token")]))
        found = []
        async for _, batch in reader.follow(last):
            found.append(batch)
            if batch.token:
                break
        assert found == [new, LogBatch("one", 5, b"replay", "token")]
    finally:
        reader.close()
        redis.drop()


async def test_what_is_followed_survives_a_store_that_goes_and_comes_back(valkey: TestValkey) -> None:
    redis, reader = PipelinedRedis(valkey.url), LogReader(valkey.url, KEYS, reconnect_seconds=0.01)
    try:
        valkey.kill()
        following = asyncio.ensure_future(anext(reader.follow("0-0")))
        await next_turn()
        await valkey.start()
        await redis.pipeline(put_batches(KEYS, [LogBatch("one", 1, b"line")]))
        async with asyncio.timeout(10):
            _, batch = await following
        assert batch.block == b"line"
        # One whose clock is behind, and which has lost what there was: its entries are none of those that were read.
        await redis.execute("XADD", KEYS.log, "99999999999999-0", *fields_of(LogBatch("one", 2, b"ahead")))
        after = reader.follow("99999999999998-0")
        async with asyncio.timeout(10):
            assert (await anext(after))[1].block == b"ahead"
        await redis.execute("DEL", KEYS.log)
        valkey.kill()
        following = asyncio.ensure_future(anext(after))
        await next_turn()
        await valkey.start()
        await redis.pipeline(put_batches(KEYS, [LogBatch("one", 3, b"behind")]))
        async with asyncio.timeout(10):
            assert (await following)[1].block == b"behind"
        await redis.pipeline(put_batches(KEYS, [LogBatch("one", 4, b"line")]))
        async with asyncio.timeout(10):
            assert (await anext(after))[1].block == b"line"
        # One that is cancelled while it waits leaves nothing that another one would take for its own.
        again = asyncio.ensure_future(anext(reader.follow("99999999999999-0")))
        await next_turn()
        await end_tasks([again])
        async with asyncio.timeout(10):
            assert (await anext(reader.follow("0-0")))[1].block == b"behind"
    finally:
        reader.close()
        redis.drop()


async def test_the_nodes_own_lines_are_kept_for_operators(valkey: TestValkey) -> None:
    redis, client = PipelinedRedis(valkey.url), connect(valkey.url)
    try:
        assert await node_lines(client, KEYS, 5) == []
        await redis.pipeline(put_node_lines(KEYS, [b"%d" % number for number in range(10)]))
        assert await node_lines(client, KEYS, 3) == [b"7", b"8", b"9"]
    finally:
        await client.aclose()
        redis.drop()
