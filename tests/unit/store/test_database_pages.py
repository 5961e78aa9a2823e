"""Pages of the store's file, and when its WAL goes into it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from pgnode.store.database import PAGE_BYTES, WAL_BYTES, Database


def pages_of(path: Path) -> tuple[int, int]:
    """The size of a page, and the bytes of a WAL that is to go into the file."""
    database = Database.open(path)
    [page_bytes] = database._db.execute("PRAGMA page_size").fetchone()
    [pages] = database._db.execute("PRAGMA wal_autocheckpoint").fetchone()
    database.close()
    return page_bytes, pages * page_bytes


def test_a_new_file_has_large_pages(tmp_path: Path) -> None:
    assert pages_of(tmp_path / "state.db") == (PAGE_BYTES, WAL_BYTES)


def test_a_file_keeps_the_pages_that_it_was_made_with(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as before:
        before.execute("PRAGMA page_size = 4096")
        before.execute("VACUUM")
    assert pages_of(path) == (4096, WAL_BYTES)
