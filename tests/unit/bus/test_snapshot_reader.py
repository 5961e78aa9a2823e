"""A worker's copy of the snapshots over a real Valkey: announced, polled, and kept while the store is away or emptied."""

from __future__ import annotations

import asyncio

import pytest

from pgnode.bus import snapshots
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_memory import SnapshotMemory
from pgnode.bus.snapshot_reader import SnapshotReader
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import Snapshot
from pgnode.os_support.shared_memory import open_shared
from tests.support.polling import eventually
from tests.support.valkey import TestValkey

KEYS = Keys("test")


async def test_a_look_does_not_overwrite_what_was_announced_meanwhile(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    reader = SnapshotReader(valkey.url, KEYS, lambda _snapshot: None)
    try:
        await redis.hset(KEYS.snapshot(snapshots.SYSTEM), mapping={"rev": 5, "at_ms": 1, "body": b"older"})
        # The look asks first; the announcement comes before its answer.
        await asyncio.gather(reader.poll(), reader.announced(b"system 6 2\nnewer"))
        held = reader.get(snapshots.SYSTEM)
        assert held is not None
        assert held.body == b"newer"
        # A look that begins later takes what is there, whichever revision that is.
        await reader.poll()
        held = reader.get(snapshots.SYSTEM)
        assert held is not None
        assert held.body == b"older"
    finally:
        await reader.close()
        await redis.aclose()


async def test_snapshots_come_by_announcement_by_look_and_after_a_restart(valkey: TestValkey) -> None:
    writer, redis, seen = SnapshotWriter(KEYS), connect(valkey.url), list[Snapshot]()

    async def put(name: str, body: bytes) -> None:
        pipe = redis.pipeline(transaction=True)
        writer.put(pipe, name, body)
        await pipe.execute()

    await put(snapshots.SYSTEM, b"early")
    reader = SnapshotReader(valkey.url, KEYS, seen.append, poll_seconds=0.2)
    reader.start()
    try:

        def held(name: str) -> bytes:
            snapshot = reader.get(name)
            return bytes(snapshot.body) if snapshot is not None else b""

        await eventually(lambda: held(snapshots.SYSTEM) == b"early", "what was there before")
        await put(snapshots.SYSTEM, b"small")
        await eventually(lambda: held(snapshots.SYSTEM) == b"small", "a small one")
        large = bytes(100_000)
        await put(snapshots.STATS_USERS, large)
        await eventually(lambda: held(snapshots.STATS_USERS) == large, "a large one")
        revisions = [snapshot.rev for snapshot in seen if snapshot.name == snapshots.SYSTEM]
        assert revisions == sorted(set(revisions))

        # Written without an announcement, as if that had been lost.
        await redis.hset(KEYS.snapshot(snapshots.BACKEND), mapping={"rev": 9**15, "at_ms": 1, "body": b"unannounced"})
        await eventually(lambda: held(snapshots.BACKEND) == b"unannounced", "what was not announced")

        valkey.kill()
        assert held(snapshots.SYSTEM) == b"small", "the last one is kept while the store is away"
        await valkey.start()

        async def again() -> bool:
            await put(snapshots.SYSTEM, b"after")
            return held(snapshots.SYSTEM) == b"after"

        await eventually(again, "snapshots come again", errors=BUS_ERRORS)
    finally:
        await reader.close()
        await redis.aclose()


async def test_what_the_store_has_lost_stays_as_it_was(valkey: TestValkey) -> None:
    writer, redis, seen = SnapshotWriter(KEYS), connect(valkey.url), list[Snapshot]()
    reader = SnapshotReader(valkey.url, KEYS, seen.append)
    try:
        pipe = redis.pipeline(transaction=True)
        writer.put(pipe, snapshots.SYSTEM, b"kept")
        await pipe.execute()
        await reader.poll()
        assert await writer.write_missing(redis) == []
        await redis.flushall()
        await reader.poll()
        held = reader.get(snapshots.SYSTEM)
        assert held is not None
        assert held.body == b"kept"
        assert reader.polled_at is not None
        # The supervisor fills the store again, with the same revision: that is no news.
        assert await writer.write_missing(redis) == [snapshots.SYSTEM]
        await reader.poll()
        assert len(seen) == 1
    finally:
        await reader.close()
        await redis.aclose()


async def test_announcements_that_say_nothing_new(valkey: TestValkey) -> None:
    seen = list[Snapshot]()
    reader = SnapshotReader(valkey.url, KEYS, seen.append)
    try:
        await reader.announced(b"system 5 1\nbody")
        for data in (b"system 5 1\nbody", b"no_such_name 6 1\nbody", b"not an announcement", b"\xff"):
            await reader.announced(data)
        assert [snapshot.body for snapshot in seen] == [b"body"]
        # An older revision: another supervisor's. What is in the store counts, and there is nothing.
        await reader.announced(b"system 4 1\nolder")
        assert repr(reader) == "SnapshotReader(system@5)"
    finally:
        await reader.close()


LARGE = bytes(range(256)) * (snapshots.SHARED_BYTES // 256)


@pytest.mark.parametrize("can_map", [True, False])
async def test_a_large_block_is_mapped_or_read(valkey: TestValkey, can_map: bool) -> None:
    writer = SnapshotWriter(KEYS, memory=SnapshotMemory())
    redis, seen = connect(valkey.url), list[Snapshot]()
    reader = SnapshotReader(valkey.url, KEYS, seen.append, open_shared=open_shared if can_map else lambda _handle: None)
    try:
        pipe = redis.pipeline(transaction=True)
        for name in (snapshots.STATS_USERS, snapshots.SYSTEM):
            writer.put(pipe, name, LARGE)
        await pipe.execute()
        await reader.poll()
        assert await redis.exists(KEYS.not_mapped) == (not can_map)
        if not can_map:
            assert [snapshot.name for snapshot in seen] == [snapshots.SYSTEM]
            # The supervisor looks once a second.
            await writer.write_missing(redis)
            await reader.poll()
        assert {snapshot.name for snapshot in seen} == {snapshots.SYSTEM, snapshots.STATS_USERS}
        [users] = [snapshot for snapshot in seen if snapshot.name == snapshots.STATS_USERS]
        assert users.body == LARGE
        assert isinstance(users.body, memoryview if can_map else bytes)
        await reader.poll()
        assert len(seen) == 2, "nothing is new"
    finally:
        await reader.close()
        await redis.aclose()


async def test_a_revision_that_was_superseded_while_it_was_looked_for_is_found_in_its_next_one(
    valkey: TestValkey,
) -> None:
    writer, redis, seen = (
        SnapshotWriter(KEYS, memory=SnapshotMemory()),
        connect(valkey.url),
        list[Snapshot](),
    )
    missed = list[str]()

    def too_late(handle: str) -> memoryview | None:
        if not missed:
            missed.append(handle)
            return None
        return open_shared(handle)

    reader = SnapshotReader(valkey.url, KEYS, seen.append, open_shared=too_late)
    try:
        pipe = redis.pipeline(transaction=True)
        writer.put(pipe, snapshots.STATS_USERS, LARGE)
        await pipe.execute()
        await reader.poll()
        assert [snapshot.body for snapshot in seen] == [LARGE]
        assert not await redis.exists(KEYS.not_mapped)
    finally:
        await reader.close()
        await redis.aclose()
