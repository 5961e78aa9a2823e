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
    alice, bob = DepartedUser(1.5, (b"one", b"")), DepartedUser(2.0, ())
    database.write(StoreChanges(departed={"alice": alice, "bob": bob}))
    assert database.load().departed == {"alice": alice, "bob": bob}
    database.write(StoreChanges(departed={"alice": None}, users={"carol": b"1"}))
    with contextlib.closing(connect(path, read_only=True)) as connection:
        assert read_departed(connection) == {"bob": bob}
        assert read_users(connection) == ({"carol": b"1"}, 1)
    database.close()


def test_a_file_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Database.open(path, migrations=MIGRATIONS[: WITH_DEPARTED - 1]).close()
    with contextlib.closing(connect(path, read_only=True)) as connection:
        assert read_departed(connection) == {}


def test_a_damaged_row_is_told() -> None:
    with pytest.raises(ValueError, match="damaged"):
        DepartedUser.decode(1.0, b"\0\0\0\x09short")
