"""What the store holds in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.errors import StoreUnusableError
from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database
from pgnode.store.rows import RejectedUser
from pgnode.store.state import StoreSummary
from pgnode.store.summary import read_summary


def test_it_is_counted_beside_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    assert read_summary(path) is None
    database = Database.open(path)
    assert read_summary(path) == StoreSummary(0, 0, active=False, restoring=0, core_run=0)
    database.write(
        StoreChanges(
            meta={"core_run": 3, "active": 1, "restoring": 2},
            users={"alice": b"", "bob": b""},
            rejected={"carol": RejectedUser("Carol", "too long", 0, b"")},
        )
    )
    assert read_summary(path) == StoreSummary(2, 1, active=True, restoring=2, core_run=3)
    database.write(StoreChanges(user_set={"alice": b"", "bob": b"", "dave": b""}))
    database.write(StoreChanges(users={"bob": None}))
    assert read_summary(path) == StoreSummary(2, 1, active=True, restoring=2, core_run=3)
    database.close()


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreUnusableError, match="cannot be read: the file is damaged"):
        read_summary(tmp_path / "state.db")
    (tmp_path / "empty.db").touch()
    assert read_summary(tmp_path / "empty.db") is None
