"""Revisions rise, and what Redis lost is written again."""

from __future__ import annotations

from redis.asyncio import Redis

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import INLINE_BYTES, STATS_USERS, SYSTEM
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
