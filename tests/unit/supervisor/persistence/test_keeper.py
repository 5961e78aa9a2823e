"""The copy in the store is true, whatever became of the store in between. Against a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.supervisor.persistence.keeper import Keeper
from pgnode.supervisor.persistence.redis_store import Store
from pgnode.supervisor.users.table import UserTable
from pgnode.supervisor.users.user_copy import AHEAD_USERS, UserCopy
from tests.support.valkey import running_valkey

KEYS = Keys("pgnode")


class Stage:
    """A keeper of one table of users, and the store behind it."""

    def __init__(self, redis: Redis, link: PipelinedRedis) -> None:
        self.redis = redis
        self.store = Store(redis, KEYS)
        self.table = UserTable()
        self.copy = UserCopy(self.store, self.table)
        #: How often it was said that the store lost something.
        self.losses = 0
        server = SimpleNamespace(answer=lambda *_: None, release=lambda _: None, lost_connection=self._lost)
        self.keeper = Keeper(self.store, cast(Any, server), SnapshotWriter(KEYS), link)
        self.keeper.desired += [self.copy]

    def _lost(self) -> None:
        self.losses += 1

    def put(self, numbers: range, key: str = "") -> None:
        for number in numbers:
            self.table.put(f"user{number}", f"{number} {key}".encode())

    def remove(self, numbers: range) -> None:
        for number in numbers:
            self.table.put(f"user{number}", None)

    async def is_true(self) -> bool:
        stored = await self.store.load()
        return stored.users == dict(self.table.items()) and stored.generation == self.keeper.generation

    async def left_over(self) -> int:
        return int(await self.redis.exists(KEYS.users_next))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running_valkey() as valkey:
        redis, link = connect(valkey.url), PipelinedRedis(valkey.url)
        try:
            yield Stage(redis, link)
        finally:
            link.drop()
            await redis.aclose()


async def test_a_store_that_was_emptied_between_two_writes_gets_everything_again(stage: Stage) -> None:
    stage.put(range(10))
    assert await stage.keeper.commit(())
    assert (await stage.is_true(), stage.losses) == (True, 0)
    await stage.redis.flushall()
    stage.put(range(3), "new")
    assert await stage.keeper.commit(())
    assert stage.losses == 1, "the store does not have what it was told before"
    await stage.keeper.fill_if_missed(asyncio.Lock())
    assert await stage.is_true()
    stage.put(range(2), "newest")
    assert await stage.keeper.commit(())
    assert (await stage.is_true(), stage.losses) == (True, 1)


async def test_a_set_that_was_written_ahead_takes_the_place_of_the_stored_one(stage: Stage) -> None:
    stage.put(range(20))
    assert await stage.keeper.commit(())
    stage.remove(range(10, 20))
    stage.put(range(5, 5 + 2 * AHEAD_USERS), "new")
    await stage.copy.write_ahead()
    assert (await stage.store.load()).users == {f"user{number}": f"{number} ".encode() for number in range(20)}
    # Between this and the answer users may change once more, come and go.
    stage.put(range(3), "newest")
    stage.remove(range(1000, 1010))
    stage.put(range(5000, 5003))
    assert await stage.keeper.commit(())
    assert (await stage.is_true(), await stage.left_over()) == (True, 0)


async def test_what_was_written_ahead_for_a_start_that_failed_is_never_taken(stage: Stage) -> None:
    stage.put(range(20))
    assert await stage.keeper.commit(())
    before = dict(stage.table.items())
    stage.put(range(2 * AHEAD_USERS), "new")
    await stage.copy.write_ahead()
    assert await stage.left_over() == 1
    stage.table.return_to(before)
    stage.copy.forget_ahead()
    assert await stage.keeper.commit(())
    assert (await stage.is_true(), await stage.left_over()) == (True, 0)
    assert dict(stage.table.items()) == before


async def test_a_set_written_ahead_that_got_lost_is_stored_all_the_same(stage: Stage) -> None:
    stage.put(range(20))
    assert await stage.keeper.commit(())
    stage.put(range(2 * AHEAD_USERS), "new")
    await stage.copy.write_ahead()
    await stage.redis.flushall()
    assert not await stage.keeper.commit(())
    assert stage.losses == 1
    await stage.keeper.fill_if_missed(asyncio.Lock())
    assert (await stage.is_true(), await stage.left_over()) == (True, 0)


async def test_few_users_are_not_written_ahead(stage: Stage) -> None:
    stage.put(range(4 * AHEAD_USERS))
    assert await stage.keeper.commit(())
    stage.put(range(AHEAD_USERS + 1), "new")
    await stage.copy.write_ahead()
    assert await stage.left_over() == 0
    assert await stage.keeper.commit(())
    assert await stage.is_true()


async def test_a_store_that_is_away_fails_no_start(stage: Stage) -> None:
    stage.put(range(2 * AHEAD_USERS))
    away = UserCopy(Store(connect("unix:///nowhere"), KEYS), stage.table)
    await away.write_ahead()
    assert stage.table.unstored == stage.table.keys()
