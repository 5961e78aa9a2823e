"""Keys of the node that hold something of another type: somebody else wrote them, and every command on them fails for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis


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


async def remove_other_types(redis: PipelinedRedis, types: Mapping[str, str]) -> list[str]:
    """Remove the keys that hold something else than they should.

    Args:
        redis: The connection to do it on.
        types: Key -> type.

    Returns:
        The keys that were removed.

    Raises:
        BUS_ERRORS: Redis is away.
    """
    found = await redis.pipeline([("TYPE", key) for key in types])
    others = [
        key for (key, name), is_now in zip(types.items(), found, strict=True) if is_now not in (name.encode(), b"none")
    ]
    if others:
        await redis.execute("UNLINK", *others)
    return others
