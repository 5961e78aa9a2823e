"""Large snapshots on another host: fetched when they are wanted, by one worker for all; a real Valkey counts the bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from pgnode.bus.connection import connect
from pgnode.bus.host_copies import HostCopies, this_host
from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_memory import SnapshotMemory
from pgnode.bus.snapshot_reader import SnapshotReader
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import SHARED_BYTES, STATS_USERS, Snapshot
from pgnode.errors import BusUnavailableError, UnavailableError
from pgnode.os_support.shared_memory import SharedBytes, open_shared
from tests.support.polling import eventually, pause
from tests.support.valkey import TestValkey

KEYS = Keys("test")
SIZE = 4 * SHARED_BYTES


class Stage:
    """A supervisor's snapshots, and the workers of other hosts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis: Redis = connect(url)
        self.writer = SnapshotWriter(KEYS, memory=SnapshotMemory())
        self.brought = 0
        self.copies: list[HostCopies] = []

    async def publish(self, body: bytes) -> int:
        pipe = self.redis.pipeline(transaction=True)
        self.writer.put(pipe, STATS_USERS, body)
        await pipe.execute()
        self.writer.published()
        return self.writer.last_revision

    async def bring(self, name: str) -> int:
        self.brought += 1
        return await self.writer.bring(self.redis, name)

    def host(self, name: str = "east") -> HostCopies:
        # However busy the machine is.
        self.copies.append(HostCopies(self.url, KEYS, self.bring, host=name, copying_ms=600_000))
        return self.copies[-1]

    async def bytes_out(self) -> int:
        return int((await self.redis.info("stats"))["total_net_output_bytes"])


@pytest_asyncio.fixture
async def stage(valkey: TestValkey) -> AsyncIterator[Stage]:
    made = Stage(valkey.url)
    yield made
    for copies in made.copies:
        await copies.close()
    await made.redis.aclose()


def test_a_host_is_what_can_map_one_anothers_memory() -> None:
    assert re.fullmatch("[0-9a-f]{16}", this_host())
    assert this_host() == this_host()


async def test_a_hundred_workers_of_four_hosts_cost_four_copies(stage: Stage) -> None:
    rev = await stage.publish(bytes(SIZE))
    workers = [stage.host(f"host{number % 4}") for number in range(100)]
    before = await stage.bytes_out()
    found = await asyncio.gather(*(worker.fetch(STATS_USERS, rev) for worker in workers))
    assert {(came, len(body)) for came, body in found} == {(rev, SIZE)}
    assert stage.brought == 4
    spent = await stage.bytes_out() - before
    assert 4 * SIZE <= spent < 4.5 * SIZE, "once for each host, and what the workers say to each other"


async def test_a_revision_is_written_once_and_replaced_by_the_next_one(stage: Stage) -> None:
    first = await stage.publish(b"a" * SIZE)
    assert await stage.bring(STATS_USERS) == await stage.bring(STATS_USERS) == first
    second = await stage.publish(b"b" * SIZE)
    assert await stage.bring(STATS_USERS) == second
    assert not await stage.redis.exists(KEYS.brought(STATS_USERS, first))
    await stage.redis.flushall()
    assert await stage.bring(STATS_USERS) == second
    assert await stage.redis.get(KEYS.brought(STATS_USERS, second)) == b"b" * SIZE
    assert await stage.bring("unknown") == 0


async def test_what_a_neighbour_took_along_is_fetched_again(stage: Stage) -> None:
    rev = await stage.publish(bytes(SIZE))
    await stage.host().fetch(STATS_USERS, rev)
    await stage.copies[0].close()
    assert (await stage.host().fetch(STATS_USERS, rev))[0] == rev
    assert stage.brought == 2


async def test_who_fetches_and_ends_is_waited_for_no_longer_than_that(stage: Stage) -> None:
    rev = await stage.publish(bytes(SIZE))
    await stage.redis.set(KEYS.copying("east", STATS_USERS), "another", px=60_000)
    waiting = asyncio.create_task(stage.host().fetch(STATS_USERS, rev))
    await pause()
    assert not waiting.done()
    await stage.redis.delete(KEYS.copying("east", STATS_USERS))
    assert (await waiting)[0] == rev


async def test_without_shared_memory_each_has_its_own(stage: Stage) -> None:
    def no_room(_data: bytes) -> SharedBytes:
        raise OSError("no room")

    rev = await stage.publish(bytes(SIZE))
    copies = HostCopies(stage.url, KEYS, stage.bring, host="east", put=no_room)
    stage.copies.append(copies)
    assert await copies.fetch(STATS_USERS, rev) == (rev, bytes(SIZE))
    assert "nothing" in repr(copies)


async def test_what_is_not_there_is_said(stage: Stage) -> None:
    with pytest.raises(BusUnavailableError, match="has lost these figures"):
        await stage.host().fetch(STATS_USERS, 1)
    assert not await stage.redis.exists(KEYS.copying("east", STATS_USERS))


async def test_a_reader_elsewhere_fetches_what_is_wanted_and_nothing_else(stage: Stage) -> None:
    seen, behind = list[Snapshot](), list[tuple[str, int]]()
    copies = stage.host()
    reader = SnapshotReader(
        stage.url,
        KEYS,
        seen.append,
        open_shared=lambda _handle: None,
        fetch=copies.fetch,
        on_behind=lambda name, rev: behind.append((name, rev)),
    )
    try:
        reader.want(STATS_USERS)
        rev = await stage.publish(b"x" * SIZE)
        before = await stage.bytes_out()
        for _ in range(3):
            await reader.poll()
        assert (behind, seen) == ([(STATS_USERS, rev)], []), "said once"
        assert not await stage.redis.exists(KEYS.not_mapped)
        assert await stage.bytes_out() - before < SIZE / 100
        reader.want(STATS_USERS)
        reader.want(STATS_USERS)
        await eventually(lambda: seen, "it comes")
        assert (seen[0].rev, bytes(seen[0].body)) == (rev, b"x" * SIZE)
        assert stage.brought == 1
        # A small one comes along, or with the next look for it.
        small = await stage.publish(b"y" * 5000)
        await reader.poll()
        assert behind[-1] == (STATS_USERS, small)
        reader.want(STATS_USERS)
        await eventually(lambda: len(seen) == 2, "it comes")
        await reader.announced(b"stats.users %d 1\nz" % (small + 1))
        assert bytes(seen[-1].body) == b"z"
    finally:
        await reader.close()


async def test_on_the_supervisors_host_it_is_mapped_at_once(stage: Stage) -> None:
    seen, behind = list[Snapshot](), list[str]()
    reader = SnapshotReader(
        stage.url,
        KEYS,
        seen.append,
        open_shared=open_shared,
        fetch=stage.host().fetch,
        on_behind=lambda name, _rev: behind.append(name),
    )
    try:
        await stage.publish(b"x" * SIZE)
        await reader.poll()
        assert (len(seen), behind, stage.brought) == (1, [], 0)
    finally:
        await reader.close()


async def test_what_could_not_be_fetched_is_wanted_again(stage: Stage) -> None:
    tries = list[str]()

    async def away(name: str, _rev: int) -> tuple[int, bytes]:
        tries.append(name)
        raise UnavailableError("away")

    seen = list[Snapshot]()
    reader = SnapshotReader(stage.url, KEYS, seen.append, open_shared=lambda _handle: None, fetch=away)
    try:
        await stage.publish(b"x" * SIZE)
        await reader.poll()
        for expected in (1, 2):

            def again(times: int = expected) -> bool:
                reader.want(STATS_USERS)
                return len(tries) >= times

            await eventually(again, "it is tried")
        await stage.redis.flushall()
        reader.want(STATS_USERS)
        assert not seen
    finally:
        await reader.close()
