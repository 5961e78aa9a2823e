"""Snapshots that could not be written are written again, by whatever is published next; on a real Valkey."""

from __future__ import annotations

from typing import Any

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import STATS_USERS, SYSTEM
from pgnode.supervisor.persistence.snapshot_publisher import SnapshotPublisher
from tests.support.valkey import running_valkey

KEYS = Keys("publisher:")


async def test_what_was_not_written_comes_with_the_next_ones() -> None:
    async with running_valkey() as valkey:
        redis = connect(valkey.url)
        publisher = SnapshotPublisher(redis, SnapshotWriter(KEYS))

        async def stored(name: str) -> Any:
            return await redis.hget(KEYS.snapshot(name), "body")

        try:
            assert await publisher.publish({STATS_USERS: b"before the traffic"})
            valkey.kill()
            assert not await publisher.publish({STATS_USERS: b"after it"})
            await valkey.start()
            assert await stored(STATS_USERS) == b"before the traffic"
            assert await publisher.publish({SYSTEM: b"figures"})
            assert await stored(STATS_USERS) == b"after it"
            assert await stored(SYSTEM) == b"figures"

            revision = await redis.hget(KEYS.snapshot(STATS_USERS), "rev")
            assert await publisher.publish({STATS_USERS: b"after it"})
            assert await redis.hget(KEYS.snapshot(STATS_USERS), "rev") == revision, "no news, no revision"
        finally:
            await redis.aclose()


async def test_a_newer_one_is_not_overtaken_by_what_could_not_be_written() -> None:
    async with running_valkey() as valkey:
        redis = connect(valkey.url)
        snapshots = SnapshotWriter(KEYS)
        publisher = SnapshotPublisher(redis, snapshots)
        try:
            valkey.kill()
            assert not await publisher.publish({SYSTEM: b"old"})
            await valkey.start()
            pipe = redis.pipeline()
            snapshots.put(pipe, SYSTEM, b"new")
            await pipe.execute()
            assert await publisher.publish({})
            assert await redis.hget(KEYS.snapshot(SYSTEM), "body") == b"new"
        finally:
            await redis.aclose()
