"""A copy of the store for a backup, made while the node writes; and what changes in such a copy before a node goes on with it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from pgnode.errors import StoreUnusableError
from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database, StoreWriteError, check, check_version, connect, load
from pgnode.store.sqlite_errors import told_to_operator
from pgnode.store.state import StoredState


def copy_store(path: Path, target: Path) -> StoredState | None:
    """Copy a store as of one moment. Whoever writes to it is not held up.

    Args:
        path: The file ``state.db``.
        target: The copy, one file; it is not there yet.

    Returns:
        What the copy holds; None where no node has run with the store.

    Raises:
        StoreUnusableError: The store cannot be read, or is damaged, or the copy cannot be written.
    """
    if not path.exists():
        return None
    with (
        told_to_operator(path),
        contextlib.closing(connect(path, read_only=True)) as source,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        if not check_version(source, path):
            return None
        # All pages by one step: between two of them another process could write, and it would begin anew.
        source.backup(copy, pages=-1)
        check(copy, path)
        return load(copy)


def owed_bytes(stored: StoredState) -> int:
    """Return how many bytes of users' traffic were counted and not reported, on loan or not."""
    return sum(max(row.total - row.reported, 0) for name, row in stored.counters.items() if name.startswith("user>>>"))


def prepare_restored(path: Path, *, books: StoredState | None = None, keep_owed: bool = False) -> None:
    """Make the store of a backup one with which a node can go on.

    Attempts to bring its config back are forgotten. What had been counted when the backup was made may have been reported since:
    it counts as reported, and so does what a core has counted that is found at the start. Where the folder has books of its own,
    these are newer, and know.

    Args:
        path: The store; it is changed, and brought to this version's schema.
        books: What the folder's own store holds, where it is of the same node: its books replace those of the backup.
        keep_owed: What was owed is to be reported, once more where it was since.

    Raises:
        StoreUnusableError: It cannot be used, or there is no room.
    """
    database = Database.open(path)
    try:
        stored = database.load()
        changes = StoreChanges(meta=dict.fromkeys(("restoring", "restore_errors", "write_off", "drain")))
        if books is not None:
            _take_books(changes, stored, books)
        elif not keep_owed:
            _drop_owed(changes, stored)
        database.write(changes)
        database.fold()
    except StoreWriteError as error:
        raise StoreUnusableError(f"{path} cannot be written: {error}") from None
    finally:
        database.close()


def _take_books(changes: StoreChanges, stored: StoredState, books: StoredState) -> None:
    """Put newer books in place of those of a backup."""
    changes.run = books.run
    changes.counters = {**dict.fromkeys(stored.counters), **books.counters}
    changes.loans = {**dict.fromkeys(stored.loans), **books.loans}
    changes.settled = {**dict.fromkeys(stored.settled), **books.settled}
    changes.meta["write_off"] = 1 if books.foreign_books else None
    # The number of the core that may still run.
    changes.meta["core_run"] = max(stored.core_run, books.core_run)


def _drop_owed(changes: StoreChanges, stored: StoredState) -> None:
    """Count everything as reported."""
    changes.counters = {
        name: row._replace(reported=row.total) for name, row in stored.counters.items() if row.total > row.reported
    }
    changes.loans = dict.fromkeys(stored.loans)
    changes.settled = dict.fromkeys(stored.settled)
    changes.meta["write_off"] = 1
