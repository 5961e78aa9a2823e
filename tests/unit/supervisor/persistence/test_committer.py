"""Store first, then answer: what callers are told, and what is kept, when the store or the bus fails. Real ones of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.server import CommandServer
from pgnode.errors import StoreUnavailableError
from pgnode.os_support.aio import end_tasks
from pgnode.store.changes import Journal, Scope, StoreChanges
from pgnode.store.database import StoreWriteError
from pgnode.store.reader import read_state
from pgnode.store.rows import LedgerRow
from pgnode.store.state import StoredState
from pgnode.store.writer import StoreWriter
from pgnode.supervisor.persistence.committer import StateCommitter
from tests.support.polling import eventually, next_turn
from tests.support.valkey import TestValkey, running_valkey

KEYS = Keys("pgnode")


class FragileWriter(StoreWriter):
    """Takes nothing while there is no ``room``."""

    room = True
    commits = 0

    async def commit(self, changes: StoreChanges) -> None:
        if not self.room:
            raise StoreWriteError("no room on the disk")
        self.commits += 1
        await super().commit(changes)

    async def require_room(self, needed_bytes: int) -> None:
        if not self.room:
            raise StoreWriteError("no room on the disk")
        await super().require_room(needed_bytes)


class Stage:
    def __init__(self, valkey: TestValkey, path: Path) -> None:
        self.valkey = valkey
        self.path = path
        self.journal = Journal()
        self.writer = FragileWriter(path)
        self.redis = connect(valkey.url)
        self.bus = PipelinedRedis(valkey.url)
        self.server = CommandServer(valkey.url, KEYS, block_seconds=0.2)
        self.client = CommandClient(valkey.url, KEYS, "worker")
        self.told: list[str] = []
        self.committer = StateCommitter(
            self.journal,
            self.writer,
            self.server,
            self.redis,
            self.bus,
            tell=lambda _pipe: self.told.append("told"),
            retry_seconds=0.02,
        )

    @property
    def stored(self) -> StoredState:
        state = read_state(self.path)
        assert state is not None
        return state

    async def ask(self, kind: Kind = Kind.SYNC_USER) -> tuple[asyncio.Task[bytes], Command]:
        """A caller who waits, and its command as the supervisor has it."""
        caller = asyncio.create_task(self.client.call(kind, b"", 20))
        while True:
            if commands := await self.server.take():
                return caller, commands[0]

    async def close(self) -> None:
        await self.client.close()
        await self.server.close()
        self.bus.drop()
        await self.redis.aclose()
        await self.writer.close()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with running_valkey() as valkey:
        made = Stage(valkey, tmp_path / "state.db")
        await made.writer.open()
        made.client.start()
        try:
            yield made
        finally:
            await made.close()


def done(*commands: Command) -> Sequence[tuple[Command, Reply]]:
    return [(command, Reply()) for command in commands]


async def test_an_answer_means_that_it_is_stored(stage: Stage) -> None:
    caller, command = await stage.ask()
    stage.journal.users["alice"] = b"1"
    assert await stage.committer.commit(done(command))
    assert await caller == b""
    assert stage.stored.users == {"alice": b"1"}
    assert (stage.told, stage.committer.generation) == (["told"], 1)
    # Nothing changed: nothing is written or told.
    caller, command = await stage.ask()
    assert await stage.committer.commit(done(command))
    assert await caller == b""
    assert (stage.told, stage.committer.generation, stage.writer.commits) == (["told"], 1, 1)


async def test_desired_state_and_traffic_are_stored_apart(stage: Stage) -> None:
    stage.journal.users["alice"] = b"1"
    stage.journal.counters["user>>>alice"] = LedgerRow(1, 0, 1, 1)
    caller, command = await stage.ask(Kind.TAKE_STATS)
    assert await stage.committer.commit_traffic(done(command))
    await caller
    assert (stage.stored.users, list(stage.stored.counters)) == ({}, ["user>>>alice"])
    assert await stage.committer.commit()
    assert stage.stored.users == {"alice": b"1"}


async def test_what_is_not_stored_is_told_and_kept_in_order(stage: Stage) -> None:
    stage.writer.room = False
    first, command = await stage.ask()
    stage.journal.users |= {"alice": b"1", "bob": b"1"}
    before = stage.committer.begin(done(command))
    second, later = await stage.ask(Kind.STOP)
    stage.journal.users["alice"] = b"2"
    behind = stage.committer.begin([(later, Reply(error=StoreUnavailableError("its own")))])
    assert await stage.committer.store(before), "it is answered"
    assert await stage.committer.store(behind)
    with pytest.raises(StoreUnavailableError, match="not stored: no room on the disk"):
        await first
    with pytest.raises(StoreUnavailableError, match="its own"):
        await second
    assert "no room on the disk" in repr(stage.committer)
    # Also one who changes nothing is told: what the answer would say is not stored.
    third, command = await stage.ask()
    assert await stage.committer.commit(done(command))
    with pytest.raises(StoreUnavailableError):
        await third
    assert stage.stored.users == {}
    stage.writer.room = True
    await eventually(lambda: stage.stored.users == {"alice": b"2", "bob": b"1"}, "stored without being asked again")
    await eventually(lambda: stage.committer.error == "", "the committer knows by now")
    fourth, command = await stage.ask()
    assert await stage.committer.commit(done(command))
    assert await fourth == b""


async def test_a_store_that_takes_nothing_holds_up_no_answer_that_needs_none(stage: Stage) -> None:
    stage.writer.room = False
    stage.journal.users["alice"] = b"1"
    assert await stage.committer.commit()
    caller, command = await stage.ask(Kind.LIST_RULES)
    assert await stage.committer.answer([(command, Reply(body=b"rules"))])
    assert await caller == b"rules"


async def test_what_is_stored_and_not_answered_is_taken_again(stage: Stage) -> None:
    caller, command = await stage.ask()
    stage.journal.users["alice"] = b"1"
    commit = stage.committer.begin(done(command))
    stage.journal.users["bob"] = b"1"
    stage.committer.give_up(stage.committer.begin(()))
    stage.valkey.kill()
    assert not await stage.committer.store(commit)
    assert stage.stored.users["alice"] == b"1"
    await eventually(lambda: stage.stored.users.get("bob") == b"1", "what was given up is stored as well")
    await end_tasks([caller])


async def test_what_is_desired_is_stored_while_the_core_takes_it(stage: Stage) -> None:
    caller, command = await stage.ask()
    stage.committer.begin_early()
    assert stage.writer.commits == 0, "nothing was changed"
    stage.journal.users |= {"alice": b"1", "bob": b"1"}
    stage.committer.begin_early()
    await eventually(lambda: stage.stored.users == {"alice": b"1", "bob": b"1"}, "it is stored")
    assert not caller.done()
    # The core has refused one of them.
    stage.journal.users["bob"] = None
    assert await stage.committer.commit(done(command))
    assert await caller == b""
    assert stage.stored.users == {"alice": b"1"}
    assert (stage.told, stage.committer.generation, stage.writer.commits) == (["told"], 1, 2)
    # As nearly always: nothing comes later.
    caller, command = await stage.ask()
    stage.journal.users["alice"] = b"2"
    stage.committer.begin_early()
    assert await stage.committer.commit(done(command))
    assert await caller == b""
    assert stage.stored.users == {"alice": b"2"}
    assert (stage.told, stage.committer.generation, stage.writer.commits) == (["told", "told"], 2, 3)


@pytest.mark.parametrize("later", [False, True])
async def test_what_is_not_stored_early_is_told_and_kept_in_order(stage: Stage, later: bool) -> None:
    stage.writer.room = False
    caller, command = await stage.ask()
    stage.journal.users |= {"alice": b"1", "bob": b"1"}
    stage.committer.begin_early()
    if later:
        stage.journal.users["alice"] = b"2"
    assert await stage.committer.commit(done(command))
    with pytest.raises(StoreUnavailableError, match="not stored: no room on the disk"):
        await caller
    stage.writer.room = True
    wanted = {"alice": b"2" if later else b"1", "bob": b"1"}
    await eventually(lambda: stage.stored.users == wanted, "stored without being asked again")


async def test_what_is_given_up_is_stored_over_what_was_stored_early(stage: Stage) -> None:
    stage.journal.users["alice"] = b"1"
    async with stage.committer._scopes[Scope.DESIRED].order:
        # The group before is not answered yet.
        stage.committer.begin_early()
        stage.journal.users["alice"] = b"2"
        stage.committer.give_up(stage.committer.begin(()))
    await eventually(lambda: stage.stored.users == {"alice": b"2"}, "the last one wins")


async def test_at_the_end_what_came_after_what_is_stored_early_is_stored_too(stage: Stage) -> None:
    stage.journal.users["alice"] = b"1"
    async with stage.committer._scopes[Scope.DESIRED].order:
        stage.committer.begin_early()
        stage.journal.users["alice"] = b"2"
        storing = asyncio.create_task(stage.committer.store(stage.committer.begin(())))
        await next_turn()
        await end_tasks([storing])
    await stage.committer.close()
    assert stage.stored.users == {"alice": b"2"}


async def test_a_loan_that_is_too_large_for_the_replies_goes_in_parts(stage: Stage) -> None:
    asking = asyncio.create_task(stage.client.lend(Kind.TAKE_STATS, b"", 20))
    [command] = await stage.server.take()
    parts = [b"one" * 1000, b"two" * 1000]
    assert await stage.committer.commit_traffic([(command, Reply(lent=2, parts=parts))])
    body, settle = await asking
    assert body == b"".join(parts)
    assert not await stage.redis.exists(KEYS.loan_part(command.id, 0)), "fetched once"
    settle(True)
    [settlement] = await stage.server.take()
    assert settlement.body == f"{command.id} 1".encode()
    await stage.committer.answer(done(settlement))


async def test_a_loan_that_was_not_stored_is_given_back_by_its_worker(stage: Stage) -> None:
    stage.writer.room = False
    asking = asyncio.create_task(stage.client.lend(Kind.TAKE_STATS, b"", 20))
    [command] = await stage.server.take()
    stage.journal.counters["user>>>alice"] = LedgerRow(1, 0, 1, 1)
    assert await stage.committer.commit_traffic([(command, Reply(body=b"stats", lent=0))])
    with pytest.raises(StoreUnavailableError):
        await asking
    [settlement] = await stage.server.take()
    assert settlement.body == f"{command.id} 0".encode()
    stage.writer.room = True
    assert await stage.committer.commit_traffic(done(settlement))


async def test_at_the_end_everything_is_stored(stage: Stage) -> None:
    stage.writer.room = False
    stage.journal.users["alice"] = b"1"
    assert await stage.committer.commit()
    stage.writer.room = True
    stage.journal.counters["user>>>alice"] = LedgerRow(1, 0, 1, 1)
    await stage.committer.close()
    assert (list(stage.stored.users), list(stage.stored.counters)) == (["alice"], ["user>>>alice"])


async def test_a_change_that_has_to_be_stored_asks_first(stage: Stage) -> None:
    await stage.committer.require_room(10)
    stage.writer.room = False
    with pytest.raises(StoreUnavailableError, match=r"^not stored: no room on the disk; what runs goes on unchanged$"):
        await stage.committer.require_room(10)
    # What waits for the store is tried first, and says whether it takes anything.
    stage.journal.users["alice"] = b"1"
    await stage.committer.commit()
    with pytest.raises(StoreUnavailableError, match="no room on the disk"):
        await stage.committer.require_room(10)
    stage.writer.room = True
    await stage.committer.require_room(10)
    assert stage.stored.users == {"alice": b"1"}
