"""Users as the file has them: who is desired, and whose connections are to be ended still."""

from __future__ import annotations

import json
import sqlite3

from pgnode.store.rows import DepartedUser
from pgnode.store.schema import WITH_DEPARTED, WITH_DEPARTED_LOG, WITH_USER_SET
from pgnode.store.user_set import unpack as unpack_users


def read_users(connection: sqlite3.Connection) -> tuple[dict[str, bytes], int]:
    """Read everybody who is desired.

    Args:
        connection: To the file.

    Returns:
        Key -> ``User`` message, and how many changes that took since all were written.

    Raises:
        sqlite3.Error: The file cannot be read.
        ValueError: A row is damaged.
    """
    select = connection.execute
    users: dict[str, bytes] = dict(select("SELECT key, message FROM users"))
    changed = len(users)
    [version] = select("PRAGMA user_version").fetchone()
    if version >= WITH_USER_SET:
        users |= unpack_users(packed for (packed,) in select("SELECT packed FROM user_set ORDER BY id"))
        for packed, gone in select("SELECT packed, gone FROM user_log ORDER BY id"):
            keys = json.loads(gone) if gone is not None else []
            put = unpack_users([packed] if packed else [])
            users |= put
            for key in keys:
                users.pop(key, None)
            changed += len(put) + len(keys)
    return users, changed


def read_departed(connection: sqlite3.Connection) -> dict[str, DepartedUser]:
    """Read whose connections are to be ended still.

    Args:
        connection: To the file, which may be an earlier version's.

    Returns:
        Key -> user.

    Raises:
        sqlite3.Error: The file cannot be read.
        ValueError: A row is damaged.
    """
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version < WITH_DEPARTED:
        return {}
    found = {
        key: DepartedUser.of_third_schema(at, packed)
        for key, at, packed in connection.execute("SELECT key, at, messages FROM departed")
    }
    if version >= WITH_DEPARTED_LOG:
        for generation, packed in connection.execute("SELECT generation, packed FROM departed_log ORDER BY id"):
            found |= {key: DepartedUser.decode(user, generation) for key, user in unpack_users([packed]).items()}
    return found
