"""The thread between the event loop and the file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.errors import StoreUnusableError
from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database, StoreWriteError
from pgnode.store.reader import read_state
from pgnode.store.rows import LedgerRow
from pgnode.store.state import StoredState
from pgnode.store.statements import Transaction
from pgnode.store.writer import StoreWriter
from tests.support.polling import eventually, next_turn


async def test_what_is_committed_is_there_for_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    writer = StoreWriter(path)
    assert await writer.open() == StoredState()
    await asyncio.gather(*(writer.commit(StoreChanges(users={"a": b"%d" % number})) for number in range(50)))
    state = read_state(path)
    assert state is not None
    assert state.users == {"a": b"49"}, "in the order in which it was asked for"
    await writer.close()
    assert repr(path) in repr(writer) or str(path) in repr(writer)
    again = StoreWriter(path, sync_always=True)
    assert (await again.open()).users == {"a": b"49"}
    await again.commit(StoreChanges(users={"a": None}))
    await again.close()


async def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"garbage" * 1000)
    writer = StoreWriter(tmp_path / "state.db")
    with pytest.raises(StoreUnusableError):
        await writer.open()
    await writer.close()


async def test_a_commit_that_fails_is_told_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StoreWriter(tmp_path / "state.db")
    await writer.open()
    commit = Database.commit

    def full(_self: Database, _transaction: Transaction) -> None:
        raise StoreWriteError("no room on the disk")

    monkeypatch.setattr(Database, "commit", full)
    with pytest.raises(StoreWriteError, match="no room"):
        await writer.commit(StoreChanges(users={"a": b"1"}))
    monkeypatch.setattr(Database, "commit", commit)
    await writer.commit(StoreChanges(users={"b": b"1"}))
    await writer.close()


async def test_without_memory_nothing_is_written_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_self: Database, *_: Transaction) -> None:
        raise MemoryError

    def exhausted_at_a_step(_self: Database) -> Iterator[None]:
        yield
        raise MemoryError

    writer = StoreWriter(tmp_path / "state.db", fold_rows=1)
    await writer.open()
    with monkeypatch.context() as patched:
        patched.setattr(Database, "commit", exhausted)
        with pytest.raises(StoreWriteError, match="no memory"):
            await writer.commit(StoreChanges(users={"a": b"1"}))
    monkeypatch.setattr(Database, "fold_steps", exhausted_at_a_step)
    for number in range(2):
        async with asyncio.timeout(10):
            await writer.commit(StoreChanges(counters={"a": LedgerRow(number, 0, 0, 0)}))
    await writer.close()
    state = read_state(tmp_path / "state.db")
    assert state is not None
    assert (state.users, state.counters) == ({}, {"a": LedgerRow(1, 0, 0, 0)})


async def test_the_disk_is_told_a_moment_after_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    failing = True

    def sync(_self: Database) -> None:
        told.append("sync")
        if failing:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Database, "sync", sync)
    writer = StoreWriter(tmp_path / "state.db", sync_seconds=0.05)
    await writer.open()
    for number in range(3):
        await writer.commit(StoreChanges(users={"a": b"%d" % number}))
    await eventually(lambda: told == ["sync"], "once for all of them")
    failing = False
    await writer.commit(StoreChanges(users={"a": b"again"}))
    await eventually(lambda: len(told) == 2, "and again")
    await writer.close()
    assert len(told) == 3, "and at the end"


async def test_the_log_of_counters_is_folded_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folds: list[str] = []
    fold_steps = Database.fold_steps

    def counted(self: Database) -> Iterator[None]:
        folds.append("begun")
        if len(folds) == 1:
            raise StoreWriteError("no room on the disk")
        yield from fold_steps(self)
        folds.append("done")

    monkeypatch.setattr(Database, "fold_steps", counted)
    path = tmp_path / "state.db"
    writer = StoreWriter(path, fold_rows=2)
    await writer.open()
    for number in range(4):
        await writer.commit(StoreChanges(counters={"a": LedgerRow(number, 0, 0, 0)}))
    await eventually(lambda: folds[-1] == "done", "tried again")
    state = read_state(path)
    assert state is not None
    assert state.counters == {"a": LedgerRow(3, 0, 0, 0)}
    await writer.close()


async def test_commits_come_between_the_steps_of_a_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def endless(_self: Database) -> Iterator[None]:
        while True:
            steps.append(0)
            yield

    monkeypatch.setattr(Database, "fold_steps", endless)
    writer = StoreWriter(tmp_path / "state.db", fold_rows=1)
    await writer.open()
    await writer.commit(StoreChanges(counters={"a": LedgerRow(1, 0, 0, 0)}))
    for number in range(5):
        before = len(steps)
        await eventually(lambda before=before: len(steps) > before, "it goes on")  # type: ignore[misc]
        async with asyncio.timeout(10):
            await writer.commit(StoreChanges(counters={"a": LedgerRow(number, 0, 0, 0)}))
    async with asyncio.timeout(10):
        await writer.close()
    state = read_state(tmp_path / "state.db")
    assert state is not None
    assert state.counters == {"a": LedgerRow(4, 0, 0, 0)}


async def test_a_caller_who_has_gone_holds_up_nobody(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "state.db")
    await writer.open()
    gone = asyncio.ensure_future(writer.commit(StoreChanges(users={"a": b"1"})))
    await next_turn()
    gone.cancel()
    await writer.commit(StoreChanges(users={"b": b"1"}))
    state = read_state(tmp_path / "state.db")
    assert state is not None
    assert set(state.users) == {"a", "b"}
    await writer.close()
