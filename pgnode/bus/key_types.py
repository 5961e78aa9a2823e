"""Keys of the node that hold something of another type: somebody else wrote them, and every command on them fails for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from pgnode.bus.keys import Keys


def types_of(keys: Keys, snapshots: Iterable[str]) -> dict[str, str]:
    """Return the type of each key that lasts, but for the owner's, which is not removed while somebody may own it. Pure.

    Args:
        keys: The node's.
        snapshots: The names of its snapshots.

    Returns:
        Key -> type, as Redis names it.
    """
    return {
        keys.commands: "stream",
        keys.log: "stream",
        keys.node_log: "stream",
        keys.activity: "string",
        keys.not_mapped: "string",
        keys.reports: "hash",
        **{keys.snapshot(name): "hash" for name in snapshots},
    }


def says_other_type(error: BaseException) -> bool:
    """Return whether an error of Redis says that a key is of another type. Pure."""
    return "WRONGTYPE" in str(error)


async def remove_other_types(execute: Callable[..., Awaitable[Any]], types: Mapping[str, str]) -> list[str]:
    """Remove the keys that hold something else than they should.

    Args:
        execute: Takes a command and its arguments, and returns what Redis answers.
        types: Key -> type.

    Returns:
        The keys that were removed.

    Raises:
        BUS_ERRORS: Redis is away.
    """
    removed = []
    for key, type_name in types.items():
        found = await execute("TYPE", key)
        if found not in (type_name.encode(), b"none", type_name, "none"):
            await execute("UNLINK", key)
            removed.append(key)
    return removed
