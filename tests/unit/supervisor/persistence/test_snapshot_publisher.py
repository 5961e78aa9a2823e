"""Snapshots that could not be written are written again, by whatever is published next; on a real Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.key_types import remove_other_types, types_of
from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import ALL, POLLED, STATS_USERS, SYSTEM
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.persistence.snapshot_publisher import SnapshotPublisher
from tests.support.polling import eventually, next_turn
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


async def test_what_somebody_else_put_in_their_place_is_removed() -> None:
    async with running_valkey() as valkey:
        redis = connect(valkey.url)
        types = types_of(KEYS, ALL)
        wire = PipelinedRedis(valkey.url)
        publisher = SnapshotPublisher(
            redis,
            SnapshotWriter(KEYS),
            keep_types=lambda: remove_other_types(wire, types),
            poll_interval_seconds=0.01,
        )
        keeping = asyncio.create_task(publisher.keep())
        try:
            assert await publisher.publish({SYSTEM: b"figures"})
            for key, kind in types.items():
                await redis.delete(key)
                await (redis.rpush(key, "odd") if kind == "string" else redis.set(key, "odd"))

            async def healed() -> bool:
                return await redis.exists(*types) == 1 and await redis.type(KEYS.snapshot(SYSTEM)) == b"hash"

            await eventually(healed, "only the snapshot is there")
            assert await redis.hget(KEYS.snapshot(SYSTEM), "body") == b"figures"
        finally:
            await end_tasks([keeping])
            wire.drop()
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


async def test_what_the_bus_has_lost_is_written_again() -> None:
    async with running_valkey() as valkey:
        redis = connect(valkey.url)
        publisher = SnapshotPublisher(redis, SnapshotWriter(KEYS), poll_interval_seconds=0.01)
        keeping = asyncio.create_task(publisher.keep())

        async def stored() -> bool:
            return await redis.hget(KEYS.snapshot(SYSTEM), "body") == b"kept"

        try:
            assert await publisher.publish({SYSTEM: b"kept"})
            await redis.flushall()
            await eventually(stored, "it is there again")
            valkey.kill()
            valkey.empty()
            await next_turn()
            await valkey.start()
            await eventually(stored, "and again, after the bus was away", errors=BUS_ERRORS)
            assert repr(publisher) == "SnapshotPublisher(0 unwritten)"
        finally:
            await end_tasks([keeping])
            await redis.aclose()


async def test_what_comes_last_is_written_although_it_looks_the_same_and_knows_the_revisions() -> None:
    async with running_valkey() as valkey:
        redis = connect(valkey.url)
        publisher = SnapshotPublisher(redis, SnapshotWriter(KEYS))
        told: list[dict[str, int]] = []

        def last() -> dict[str, bytes]:
            told.append(publisher.revisions([SYSTEM, STATS_USERS]))
            return {POLLED: b"as before"}

        try:
            revisions = []
            for _ in range(2):
                assert await publisher.publish({SYSTEM: b"as before"}, last)
                revisions.append([int(await redis.hget(KEYS.snapshot(name), "rev") or 0) for name in (POLLED, SYSTEM)])
            assert revisions[0][0] != revisions[1][0]
            assert revisions[0][1] == revisions[1][1]
            assert told == [{SYSTEM: revisions[0][1]}] * 2, "of what there is"
        finally:
            await redis.aclose()
