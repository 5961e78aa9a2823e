"""What the store holds in numbers, read beside its owner: for commands that say how a node is."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from pgnode.errors import StoreUnusableError
from pgnode.store.database import check_version, connect
from pgnode.store.sqlite_errors import cause_of
from pgnode.store.state import StoreSummary
from pgnode.store.user_rows import read_users


def read_summary(path: Path) -> StoreSummary | None:
    """Count what is in a store; nobody is held up by that.

    Args:
        path: The file ``state.db``.

    Returns:
        The numbers; None where no node has run with it.

    Raises:
        StoreUnusableError: The file is there and cannot be read.
    """
    if not path.exists():
        return None
    try:
        with contextlib.closing(connect(path, read_only=True)) as connection:
            if not check_version(connection, path):
                return None
            select = connection.execute
            select("BEGIN")
            meta = dict(select("SELECT key, value FROM meta WHERE key IN ('active', 'restoring', 'core_run')"))
            [rejected] = select("SELECT count(*) FROM rejected").fetchone()
            return StoreSummary(
                len(read_users(connection)[0]),
                rejected,
                bool(meta.get("active")),
                int(meta.get("restoring") or 0),
                int(meta.get("core_run") or 0),
            )
    except (sqlite3.Error, ValueError) as error:
        raise StoreUnusableError(f"{path} cannot be read: {cause_of(error)}") from None
