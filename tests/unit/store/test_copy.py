"""A copy of the store, made while it is written; and the books in it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pgnode.errors import StoreUnusableError
from pgnode.store.changes import StoreChanges
from pgnode.store.copy import copy_store, owed_bytes, prepare_restored
from pgnode.store.database import Database
from pgnode.store.reader import read_state
from pgnode.store.rows import LedgerRow, LedgerRun, LoanPart
from pgnode.store.schema import MIGRATIONS
from pgnode.store.state import StoredState

UP = "user>>>1.alice>>>traffic>>>uplink"
OF_INBOUND = "inbound>>>VLESS>>>traffic>>>uplink"
LOAN = LoanPart("7-0", "user", "worker", b"100")

#: How many copies are made, and how many commits are made around each.
COPIES = 10
COMMITS_OF_A_COPY = 40


def write(path: Path, changes: StoreChanges) -> None:
    database = Database.open(path)
    database.write(changes)
    database.close()


def read(path: Path) -> StoredState:
    found = read_state(path)
    assert found is not None
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a user, a config that ended the node, and books."""
    made = tmp_path / "state.db"
    write(
        made,
        StoreChanges(
            meta={"backend": b"config", "active": 1, "core_run": 7, "restoring": 1, "restore_errors": 2, "drain": "{}"},
            users={"alice": b"1"},
            run=LedgerRun(3, "core 3"),
            counters={UP: LedgerRow(500, 300, 200, 3), OF_INBOUND: LedgerRow(900, 0, 900, 3)},
            loans={"7-0:0": LOAN},
            settled={"6-0": True},
        ),
    )
    return made


def test_a_backup_of_a_drained_node_is_not_drained(path: Path) -> None:
    assert read(path).drain == "{}"
    prepare_restored(path)
    assert read(path).drain == ""


def test_no_store_has_no_copy(tmp_path: Path) -> None:
    assert copy_store(tmp_path / "state.db", tmp_path / "copy") is None
    (tmp_path / "state.db").touch()
    assert copy_store(tmp_path / "state.db", tmp_path / "copy") is None


def test_a_copy_is_of_one_moment_while_the_store_is_written(path: Path, tmp_path: Path) -> None:
    """Each commit writes two things that have to agree, and enough of it that pages move.

    A copy begins when the writer is in the middle of some commits. They are not endless: what is copied grows with each.
    """
    database = Database.open(path)
    permits, ended = threading.Semaphore(0), threading.Event()
    begun = [threading.Event() for _ in range(COPIES)]
    commits = 0

    def go_on_writing() -> None:
        nonlocal commits
        for event in begun:
            for number in range(COMMITS_OF_A_COPY):
                permits.acquire()
                if ended.is_set():
                    return
                commits += 1
                text = str(commits)
                users: dict[str, bytes | None] = {f"user{number}": text.encode() * 50 for number in range(300)}
                database.write(StoreChanges(users=users, routing={"rules": text}))
                if number == 1:
                    event.set()

    writing = threading.Thread(target=go_on_writing)
    writing.start()
    try:
        for number, event in enumerate(begun):
            permits.release(COMMITS_OF_A_COPY)
            assert event.wait(60), "the writer goes on"
            before = commits
            state = copy_store(path, tmp_path / f"copy{number}")
            assert state is not None
            text = state.routing["rules"]
            assert {state.users[f"user{number}"] for number in range(300)} == {text.encode() * 50}
            assert int(text) >= before - 1
            assert read(tmp_path / f"copy{number}") == state
    finally:
        ended.set()
        permits.release(COPIES * COMMITS_OF_A_COPY)
        writing.join()
        database.close()


def test_what_cannot_be_copied_is_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreUnusableError):
        copy_store(path, tmp_path / "nowhere" / "copy")
    database = Database.open(path, migrations=[*MIGRATIONS, ["SELECT 1"]])
    database.close()
    with pytest.raises(StoreUnusableError, match="newer pgnode"):
        copy_store(path, tmp_path / "copy")


def test_what_was_owed_counts_as_reported(path: Path) -> None:
    assert owed_bytes(read(path)) == 200, "of users alone"
    prepare_restored(path)
    assert not path.with_name("state.db-wal").exists(), "it is one file"
    state = read(path)
    assert state.counters == {UP: LedgerRow(500, 500, 200, 3), OF_INBOUND: LedgerRow(900, 900, 900, 3)}
    assert (owed_bytes(state), state.loans, state.settled, state.foreign_books) == (0, {}, {}, True)
    assert (state.restoring, state.restore_errors) == (0, 0), "the config gets its chance"
    assert (state.users, state.backend, state.active, state.core_run) == ({"alice": b"1"}, b"config", True, 7)


def test_what_was_owed_may_be_kept(path: Path) -> None:
    before = read(path)
    prepare_restored(path, keep_owed=True)
    state = read(path)
    assert (state.counters, state.loans, state.settled) == (before.counters, before.loans, before.settled)
    assert not state.foreign_books


def test_newer_books_replace_those_of_the_backup(path: Path, tmp_path: Path) -> None:
    newer = {"user>>>2.bob>>>traffic>>>uplink": LedgerRow(50, 20, 50, 5)}
    books = StoredState(core_run=9, run=LedgerRun(5, "core 5"), counters=newer, loans={}, settled={"8-0": False})
    prepare_restored(path, books=books)
    state = read(path)
    assert (state.counters, state.run, state.loans, state.settled) == (newer, books.run, {}, {"8-0": False})
    assert (state.core_run, state.foreign_books) == (9, False)
    assert state.users == {"alice": b"1"}
    prepare_restored(path, books=StoredState(core_run=2, foreign_books=True))
    assert (read(path).core_run, read(path).foreign_books) == (9, True)


def test_no_room_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgnode.store.database import StoreWriteError

    def full(_database: Database, _changes: StoreChanges) -> None:
        raise StoreWriteError("no room on the disk")

    monkeypatch.setattr(Database, "write", full)
    with pytest.raises(StoreUnusableError, match=r"cannot be written: no room on the disk"):
        prepare_restored(path)
