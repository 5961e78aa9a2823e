"""Revisions rise, and what Redis lost is written again."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_memory import SnapshotMemory
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import INLINE_BYTES, SHARED_BYTES, STATS_USERS, SYSTEM
from pgnode.os_support.shared_memory import open_shared
from tests.support.valkey import running_valkey


def test_revisions_rise() -> None:
    writer = SnapshotWriter(Keys("test"))
    pipe = Redis().pipeline()
    writer.put(pipe, SYSTEM, b"small")
    first = writer.get(SYSTEM)
    writer.put(pipe, SYSTEM, b"again")
    writer.put(pipe, STATS_USERS, bytes(INLINE_BYTES + 1))
    second, large = writer.get(SYSTEM), writer.get(STATS_USERS)
    assert first is not None
    assert second is not None
    assert large is not None
    assert first.rev < second.rev < large.rev
    assert writer.get("backend") is None
    assert repr(writer) == f"SnapshotWriter(system@{second.rev}, stats.users@{large.rev})"
    written = [args for args, _ in pipe.command_stack]
    assert [args[0] for args in written] == ["HSET", "PUBLISH"] * 3
    assert written[-1] == ("PUBLISH", "test:snapshots", f"stats.users {large.rev} {large.at_ms}".encode())


async def test_what_redis_lost_is_written_again_and_nothing_else() -> None:
    keys = Keys("test")
    async with running_valkey() as valkey:
        writer, redis = SnapshotWriter(keys), connect(valkey.url)
        try:
            assert await writer.write_missing(redis) == []
            pipe = redis.pipeline()
            for name in (SYSTEM, STATS_USERS):
                writer.put(pipe, name, name.encode())
            assert await writer.write_missing(redis) == [], "they are on their way"
            await pipe.execute()
            assert await writer.write_missing(redis) == []
            await redis.delete(keys.snapshot(SYSTEM))
            assert await writer.write_missing(redis) == [SYSTEM]
            assert await redis.hget(keys.snapshot(SYSTEM), "body") == b"system"
            await redis.hset(keys.snapshot(STATS_USERS), mapping={"rev": 1, "body": "older"})
            assert await writer.write_missing(redis) == [STATS_USERS]
            await redis.flushall()
            assert await writer.write_missing(redis) == [SYSTEM, STATS_USERS]
        finally:
            await redis.aclose()


def test_revisions_rise_also_where_the_clock_was_set_back() -> None:
    far = 10**15
    writer = SnapshotWriter(Keys("test"), above=far)
    writer.put(Redis().pipeline(), SYSTEM, b"small")
    assert writer.last_revision == far + 1


LARGE = bytes(range(256)) * (SHARED_BYTES // 256)


async def test_large_blocks_are_shared() -> None:
    keys = Keys("test")
    async with running_valkey() as valkey:
        writer = SnapshotWriter(keys, memory=SnapshotMemory())
        redis = connect(valkey.url)
        try:
            pipe = redis.pipeline()
            writer.put(pipe, SYSTEM, LARGE)
            writer.put(pipe, STATS_USERS, LARGE)
            await pipe.execute()
            writer.published()
            plain = await redis.hgetall(keys.snapshot(SYSTEM))
            assert (plain[b"body"], plain[b"shared"]) == (LARGE, b""), "no block"
            written: dict[Any, Any] = await redis.hgetall(keys.snapshot(STATS_USERS))
            assert written[b"body"] == b""
            found = open_shared(written[b"shared"].decode())
            assert found is not None
            assert bytes(found) == LARGE
            held = writer.get(STATS_USERS)
            assert held is not None
            assert held.has(LARGE)
            assert not held.has(LARGE[:-1] + b"x")
            assert not held.has(b"")
            # Redis was emptied: it gets the same again.
            assert await writer.write_missing(redis) == []
            await redis.flushall()
            assert await writer.write_missing(redis) == [SYSTEM, STATS_USERS]
            assert await redis.hgetall(keys.snapshot(STATS_USERS)) == written
            # A small one takes its place.
            pipe = redis.pipeline()
            writer.put(pipe, STATS_USERS, b"small")
            await pipe.execute()
            again = await redis.hgetall(keys.snapshot(STATS_USERS))
            assert (again[b"body"], again[b"shared"]) == (b"small", b"")
        finally:
            await redis.aclose()


async def test_what_a_worker_cannot_map_is_written() -> None:
    keys = Keys("test")
    async with running_valkey() as valkey:
        writer, redis = SnapshotWriter(keys, memory=SnapshotMemory()), connect(valkey.url)
        try:
            pipe = redis.pipeline()
            writer.put(pipe, STATS_USERS, LARGE)
            await pipe.execute()
            await redis.set(keys.not_mapped, "another handle")
            assert await writer.write_missing(redis) == []
            written: dict[Any, Any] = await redis.hgetall(keys.snapshot(STATS_USERS))
            await redis.set(keys.not_mapped, written[b"shared"])
            assert await writer.write_missing(redis) == [STATS_USERS]
            now = await redis.hgetall(keys.snapshot(STATS_USERS))
            assert (now[b"rev"], now[b"body"], now[b"shared"]) == (written[b"rev"], LARGE, b"")
            assert await writer.write_missing(redis) == []
            held = writer.get(STATS_USERS)
            assert held is not None
            assert (held.body, held.shared) == (LARGE, "")
        finally:
            await redis.aclose()
