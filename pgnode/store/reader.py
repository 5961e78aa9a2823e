"""Reads the store beside its owner, or while nobody owns it: for the operator's commands."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from pgnode.errors import StoreUnusableError
from pgnode.store.database import check_version, connect, load
from pgnode.store.sqlite_errors import cause_of
from pgnode.store.state import StoredState


def read_state(path: Path) -> StoredState | None:
    """Read everything, as of one moment; nobody is held up by that.

    Args:
        path: The file ``state.db``.

    Returns:
        What the store holds; None where no node has run with it.

    Raises:
        StoreUnusableError: The file is there and cannot be read.
    """
    if not path.exists():
        return None
    try:
        with contextlib.closing(connect(path, read_only=True)) as connection:
            if not check_version(connection, path):
                return None
            return load(connection)
    except (sqlite3.Error, ValueError) as error:
        raise StoreUnusableError(f"{path} cannot be read: {cause_of(error)}") from None


def check_readable(path: Path) -> None:
    """Check whether this version can use a store.

    Args:
        path: The file ``state.db``; it need not be there.

    Raises:
        StoreUnusableError: It cannot: it is damaged, or of a newer version.
    """
    if path.exists():
        try:
            with contextlib.closing(connect(path, read_only=True)) as connection:
                check_version(connection, path)
        except (sqlite3.Error, ValueError) as error:
            raise StoreUnusableError(f"{path} cannot be read: {cause_of(error)}") from None


def stored_at(path: Path) -> float:
    """Return when the store was written last, Unix seconds; 0 where there is none."""
    found = 0.0
    for name in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(OSError):
            found = max(found, name.stat().st_mtime)
    return found
