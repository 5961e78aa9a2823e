"""Users are read as the file has them, be it an earlier version's."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database, connect
from pgnode.store.rows import DepartedUser
from pgnode.store.schema import MIGRATIONS, WITH_DEPARTED
from pgnode.store.user_rows import read_departed, read_users


def test_whose_connections_are_to_be_ended_is_kept_until_that_is_done(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = Database.open(path)
    alice, bob = DepartedUser(1.5, (b"one", b""), 1), DepartedUser(2.0, (), 1)
    database.write(StoreChanges(departed={"alice": alice, "bob": bob}))
    assert database.load().departed == {"alice": alice, "bob": bob}
    # Once more before that is done, and another with whom it is done before it is written.
    again, dave = DepartedUser(3.0, (b"", b"two"), 2), DepartedUser(3.0, (b"three",), 1)
    database.write(StoreChanges(departed={"bob": again, "dave": dave}, departed_done=1, users={"carol": b"1"}))
    with contextlib.closing(connect(path, read_only=True)) as connection:
        assert read_departed(connection) == {"bob": again}
        assert read_users(connection) == ({"carol": b"1"}, 1)
    database.write(StoreChanges(departed_done=2))
    assert database.load().departed == {}
    database.close()


def test_users_of_one_commit_stay_until_the_last_of_their_generations_is_done_with(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "state.db")
    both = {"alice": DepartedUser(1.0, (b"1",), 1), "bob": DepartedUser(1.0, (b"2",), 2)}
    database.write(StoreChanges(departed=both))
    database.write(StoreChanges(departed_done=1))
    # As the row has it.
    assert database.load().departed == {key: user._replace(generation=2) for key, user in both.items()}
    database.close()


def test_a_file_of_the_third_schema_is_read_and_emptied(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Database.open(path, migrations=MIGRATIONS[:WITH_DEPARTED]).close()
    alice = DepartedUser(1.5, (b"one", b""))
    with contextlib.closing(connect(path)) as connection:
        values = ("alice", 1.5, alice.encode()[8:])
        connection.execute("INSERT INTO departed (key, at, messages) VALUES (?, ?, ?)", values)
        assert read_departed(connection) == {"alice": alice}
    database = Database.open(path)
    assert database.load().departed == {"alice": alice}
    database.write(StoreChanges(departed={"alice": alice._replace(generation=1)}))
    assert database.load().departed == {"alice": alice._replace(generation=1)}
    database.write(StoreChanges(departed_done=1))
    assert database.load().departed == {}
    database.close()


def test_a_file_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Database.open(path, migrations=MIGRATIONS[: WITH_DEPARTED - 1]).close()
    with contextlib.closing(connect(path, read_only=True)) as connection:
        assert read_departed(connection) == {}


def test_a_damaged_row_is_told() -> None:
    for packed in (b"short", bytes(8) + b"\0\0\0\x09short"):
        with pytest.raises(ValueError, match="damaged"):
            DepartedUser.decode(packed, 1)
