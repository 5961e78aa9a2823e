"""Clients of Redis: nothing is repeated, nothing waits without end, and entries of streams are read as they are."""

from __future__ import annotations

import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from pgnode.bus.connection import BUS_ERRORS, connect, ping_anew, stream_entries
from pgnode.errors import SettingsError
from tests.support.valkey import TestValkey


async def test_entries_of_a_stream(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    try:
        assert stream_entries(await redis.xread({"s": "0"})) == []
        await redis.xgroup_create("s", "g", mkstream=True)
        await redis.xadd("s", {"a": b"1"}, id="1-0")
        await redis.xadd("s", {"a": b"2"}, id="2-0")
        assert stream_entries(await redis.xread({"s": "0"})) == [("1-0", {b"a": b"1"}), ("2-0", {b"a": b"2"})]
        await redis.xreadgroup("g", "c", {"s": ">"})
        await redis.xdel("s", "1-0")
        assert stream_entries(await redis.xreadgroup("g", "c", {"s": "0"})) == [("1-0", {}), ("2-0", {b"a": b"2"})]
    finally:
        await redis.aclose()


async def test_a_command_is_not_repeated_and_does_not_wait_without_end(valkey: TestValkey) -> None:
    redis = connect(valkey.url, timeout_seconds=0.1)
    try:
        began = time.monotonic()
        with pytest.raises(BUS_ERRORS):
            await redis.blpop(["nothing"], timeout=5)
        assert time.monotonic() - began < 4
        assert await redis.ping()
        await ping_anew(valkey.url)
        valkey.kill()
        with pytest.raises(RedisConnectionError):
            await redis.ping()
        with pytest.raises(BUS_ERRORS):
            await ping_anew(valkey.url)
    finally:
        await redis.aclose()


@pytest.mark.parametrize("url", ["redis://:secret@h:abc/0", "redis://h:1/0?x=y", "unix:///x?db=z", "http://h"])
def test_an_address_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match=r"REDIS_URL=.* is not allowed: allowed is redis://") as caught:
        connect(url)
    assert "cret" not in str(caught.value)
