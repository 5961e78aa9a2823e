"""Log lines over a real Valkey: the tail, what follows, and a Valkey that goes and comes back."""

from __future__ import annotations

import asyncio

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.log_stream import LogReader, put_lines
from tests.support.polling import next_turn
from tests.support.valkey import TestValkey

KEYS = Keys("test")


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


async def test_what_is_followed_survives_a_store_that_goes_and_comes_back(valkey: TestValkey) -> None:
    redis, reader = connect(valkey.url), LogReader(valkey.url, KEYS, reconnect_seconds=0.01)
    try:
        valkey.kill()
        following = asyncio.ensure_future(anext(reader.follow("0-0")))
        await next_turn()
        await valkey.start()
        pipe = redis.pipeline(transaction=False)
        put_lines(pipe, KEYS, [b"line"], 100)
        await pipe.execute()
        async with asyncio.timeout(10):
            _, lines = await following
        assert lines == [b"line"]
        assert (await reader.tail(0))[1] == []
    finally:
        await reader.close()
        await redis.aclose()
