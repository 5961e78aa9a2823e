"""The store is read beside its owner, or while nobody owns it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pgnode.errors import StoreUnusableError
from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database
from pgnode.store.reader import check_readable, read_state, stored_at
from pgnode.store.schema import VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def write(path: Path, **users: bytes) -> None:
    database = Database.open(path)
    database.write(StoreChanges(users=dict(users)))
    database.close()


def test_no_file_is_no_state(path: Path) -> None:
    assert read_state(path) is None
    assert stored_at(path) == 0.0
    assert not path.exists(), "it is not made"


def test_an_empty_file_is_no_state(path: Path) -> None:
    path.touch()
    assert read_state(path) is None
    write(path, alice=b"1")
    state = read_state(path)
    assert state is not None
    assert state.users == {"alice": b"1"}


def test_it_was_stored_when_the_file_or_its_log_was_written_last(path: Path) -> None:
    write(path, alice=b"1")
    os.utime(path, (1000, 1000))
    assert stored_at(path) == 1000
    log = path.with_name("state.db-wal")
    log.touch()
    os.utime(log, (2000, 2000))
    assert stored_at(path) == 2000


def test_what_is_written_meanwhile_holds_up_nobody(path: Path) -> None:
    database = Database.open(path)
    database.write(StoreChanges(users={"alice": b"1"}))
    database._db.execute("BEGIN IMMEDIATE")
    database._db.execute("DELETE FROM users")
    state = read_state(path)
    assert state is not None
    assert state.users == {"alice": b"1"}, "what was committed"
    database.close()


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b""])
def test_a_file_that_cannot_be_read_is_told(path: Path, garbage: bytes) -> None:
    if garbage:
        path.write_bytes(garbage)
    else:
        path.mkdir()
    with pytest.raises(StoreUnusableError, match=f"{path} cannot be read: "):
        read_state(path)


def test_a_newer_nodes_file_is_refused(path: Path) -> None:
    write(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(StoreUnusableError, match="was written by a newer pgnode"):
        read_state(path)


@pytest.mark.parametrize("read", [read_state, check_readable])
def test_whether_a_version_can_use_it_is_checked_as_when_it_is_read(path: Path, read: Callable[[Path], object]) -> None:
    read(path)
    write(path, alice=b"1")
    read(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(StoreUnusableError, match="was written by a newer pgnode"):
        read(path)
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreUnusableError, match="cannot be read"):
        read(path)
