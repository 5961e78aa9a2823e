"""A prefix in Redis belongs to one node at a time; the other one is told whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from redis.asyncio import Redis

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Kind
from pgnode.bus.connection import connect
from pgnode.bus.keys import OWNER_TTL_MS, Keys
from pgnode.bus.ownership import Owner, PrefixOwnership, decode_owner, this_node
from pgnode.bus.server import CommandServer
from pgnode.errors import BusUnavailableError, PrefixInUseError
from pgnode.os_support.aio import end_tasks
from tests.support.polling import eventually
from tests.support.valkey import TestValkey

KEYS = Keys("test")
HERE = Owner("here", "host one, pid 1, STATE_DIR=/one")
THERE = Owner("there", "host two, pid 2, STATE_DIR=/two")


@pytest_asyncio.fixture
async def redis(valkey: TestValkey) -> AsyncIterator[Redis]:
    found = connect(valkey.url)
    yield found
    await found.aclose()


def ownership(redis: Redis, owner: Owner) -> PrefixOwnership:
    return PrefixOwnership(redis, KEYS, owner, renew_seconds=0.02, wait_seconds=0.05)


async def held_by(redis: Redis) -> Owner:
    held = await redis.get(KEYS.owner)
    assert held is not None
    return decode_owner(held)


async def test_a_prefix_is_taken_held_and_let_go(redis: Redis) -> None:
    mine = ownership(redis, HERE)
    await mine.acquire()
    assert await held_by(redis) == HERE
    assert 0 < await redis.pttl(KEYS.owner) <= OWNER_TTL_MS
    assert "ours" in repr(mine)
    # Its own next supervisor, after a crash.
    await ownership(redis, replace(HERE, description="another pid")).acquire()
    await ownership(redis, THERE).release()
    assert await redis.exists(KEYS.owner), "only its owner lets go of it"
    await mine.release()
    assert not await redis.exists(KEYS.owner)


async def test_a_second_node_is_told_whose_it_is(redis: Redis) -> None:
    mine = ownership(redis, HERE)
    await mine.acquire()
    keeping = asyncio.create_task(mine.keep())
    with pytest.raises(
        PrefixInUseError, match=r"REDIS_PREFIX=test is used by another node \(host one, pid 1, STATE_DIR=/one\)"
    ):
        await ownership(redis, THERE).acquire()
    await end_tasks([keeping])


async def test_a_key_without_an_end_is_somebodys(redis: Redis) -> None:
    await redis.set(KEYS.owner, b"\xff")
    with pytest.raises(PrefixInUseError, match="unknown"):
        await ownership(redis, THERE).acquire()


async def test_a_key_that_nobody_renews_is_waited_for(redis: Redis) -> None:
    await redis.set(KEYS.owner, HERE.encode(), px=300)
    await ownership(redis, THERE).acquire()
    assert await held_by(redis) == THERE


async def test_who_lost_it_takes_no_command_until_it_is_back(valkey: TestValkey, redis: Redis) -> None:
    mine = ownership(redis, HERE)
    await mine.acquire()
    server = CommandServer(valkey.url, KEYS, mine.is_ours)
    keeping = asyncio.create_task(mine.keep())
    client = CommandClient(valkey.url, KEYS, "worker", HERE)
    client.start()
    with structlog.testing.capture_logs() as lines:
        await redis.set(KEYS.owner, THERE.encode())
        await eventually(lambda: not mine.is_ours(), "it is noticed", 30)
        assert THERE.description in repr(mine)
        assert await server.take() == []

        async def refused() -> bool:
            try:
                await client.call(Kind.STOP, b"", 0.1)
            except BusUnavailableError as error:
                return "another node uses REDIS_PREFIX=test (host two" in str(error)
            return False

        await eventually(refused, "callers are told", 30, errors=(Exception,))
        await redis.delete(KEYS.owner)
        await eventually(mine.is_ours, "it is ours again", 30)
    assert [line["event"] for line in lines if "REDIS_PREFIX" in line["event"]] == [
        "another node uses this REDIS_PREFIX: no command is taken until it ends",
        "the REDIS_PREFIX is this node's again",
    ]
    await end_tasks([keeping])
    await client.close()
    await server.close()


async def test_both_say_who_the_other_one_is_also_where_redis_was_emptied(redis: Redis) -> None:
    one, two = ownership(redis, HERE), ownership(redis, THERE)
    await one.acquire()
    with structlog.testing.capture_logs() as lines:
        keeping = [asyncio.create_task(one.keep())]
        with pytest.raises(PrefixInUseError):
            await two.acquire()
        keeping.append(asyncio.create_task(two.keep()))

        def said(about: Owner) -> bool:
            return about.description in [line.get("other") for line in lines]

        await eventually(lambda: said(THERE) and said(HERE), "each names the other", 30)
        assert one.is_ours()
        assert not two.is_ours()
        # Now the other one is quicker.
        lines.clear()
        pipe = redis.pipeline(transaction=True)
        pipe.flushall()
        pipe.set(KEYS.owner, THERE.encode())
        await pipe.execute()
        await eventually(lambda: not one.is_ours() and two.is_ours(), "it has changed hands", 30)
        await eventually(lambda: said(THERE) and said(HERE), "each names the other again", 30)
        await end_tasks([keeping[0]])
        await redis.delete(KEYS.rival)
        await eventually(lambda: two._rival is None, "it is alone", 30)
    await end_tasks(keeping)
    assert any("another node has this REDIS_PREFIX, too, and was refused" in line["event"] for line in lines)


async def test_a_redis_that_is_away_ends_nothing(valkey: TestValkey, redis: Redis) -> None:
    mine = ownership(redis, HERE)
    valkey.kill()
    await mine.acquire()
    keeping = asyncio.create_task(mine.keep())
    await mine.release()
    assert mine.is_ours()
    await valkey.start()

    async def held() -> bool:
        return await redis.get(KEYS.owner) == HERE.encode()

    await eventually(held, "it is taken when Redis is back", 30, errors=(Exception,))
    await end_tasks([keeping])


def test_a_node_is_known_by_its_folder_on_its_host(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = this_node(tmp_path / "one"), this_node(tmp_path / "two")
    assert one == this_node(tmp_path / "one")
    assert one.identity != two.identity
    assert f"STATE_DIR={tmp_path}/two" in two.description
    (tmp_path / "one").rename(tmp_path / "three")
    assert this_node(tmp_path / "three").identity == one.identity
