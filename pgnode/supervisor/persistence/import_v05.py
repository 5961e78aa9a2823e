"""Imports the state of pgnode 0.5 and earlier, which was in Redis: once, at the first start with a new store.

The embedded Valkey of these versions had an append-only file in ``STATE_DIR/store``. It is loaded by a Valkey that runs for a
moment, and the folder gets another name, so that a store that is made anew later begins empty. What is in an external Redis
stays there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.errors import ChildFailedError, StoreUnusableError
from pgnode.os_support.fault_points import async_fault_point
from pgnode.store.changes import StoreChanges
from pgnode.store.database import StoreWriteError
from pgnode.store.legacy import HASHES, changes_of
from pgnode.store.state import StoredState
from pgnode.store.writer import StoreWriter
from pgnode.supervisor.processes import valkey
from pgnode.supervisor.processes.child import Child, ChildSpec
from pgnode.supervisor.processes.pid_registry import PidRegistry

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: The origin of a store whose state came from an earlier version.
IMPORTED = "0.5"

#: Fields of a hash asked for at once.
_SLICE = 5_000


def old_folder(settings: Settings) -> Path:
    """Return the folder in which the embedded Valkey of 0.5 had its files."""
    return settings.state_dir / "store"


async def take_over(settings: Settings, store: StoreWriter, pids: PidRegistry) -> StoredState:
    """Bring the state of an earlier version into a new store.

    Args:
        settings: Of the node.
        store: Open, and new.
        pids: Knows the Valkey that runs for it.

    Returns:
        What the store holds then.

    Raises:
        StoreUnusableError: The earlier state is there and cannot be read, or not be stored.
    """
    folder = old_folder(settings)
    where = str(folder) if settings.redis_url is None else "the Redis at REDIS_URL"
    try:
        changes = await (_from_folder(settings, pids) if settings.redis_url is None else _from_redis(settings))
        found = changes is not None
        changes = changes or StoreChanges()
        changes.meta["origin"] = IMPORTED if found else "new"
        await async_fault_point("import.read")
        await store.commit(changes)
    except (ChildFailedError, ValueError, StoreWriteError, *BUS_ERRORS) as error:
        raise StoreUnusableError(
            f"the state of an earlier version in {where} cannot be taken over: {error}; move it away to begin without, "
            "and the next start by the panel brings the users back"
        ) from None
    await async_fault_point("import.stored")
    if found:
        set_old_folder_aside(settings)
        log.info("state of an earlier version taken over", source=where)
    await async_fault_point("import.done")
    return await store.load()


def set_old_folder_aside(settings: Settings) -> None:
    """Rename the folder whose state the store has; also where the supervisor that stored it did not live to do so."""
    folder = old_folder(settings)
    aside = folder.with_name("store.0.5")
    if settings.redis_url is None and folder.is_dir() and not aside.exists():
        folder.rename(aside)


async def _from_redis(settings: Settings) -> StoreChanges | None:
    redis = connect(settings.bus_url)
    try:
        return await _read(redis, settings.bus_prefix)
    finally:
        await redis.aclose()


async def _from_folder(settings: Settings, pids: PidRegistry) -> StoreChanges | None:
    if not (old_folder(settings) / "appendonlydir").is_dir():
        return None
    socket = settings.run_dir / "import.sock"
    url = f"unix://{quote(str(socket))}"
    child = Child(
        ChildSpec(
            name="valkey for the import",
            command=valkey.import_command(socket, old_folder(settings)),
            environment=dict(os.environ),
            ready=lambda: valkey.answers(url),
            quiet=True,
        ),
        pids,
    )
    await child.start()
    redis = connect(url)
    try:
        return await _read(redis, settings.redis_prefix)
    finally:
        await redis.aclose()
        await child.stop()


async def _read(redis: Redis, prefix: str) -> StoreChanges | None:
    hashes: dict[str, dict[bytes, bytes]] = {}
    for name in HASHES:
        found = hashes[name] = {}
        async for field, value in redis.hscan_iter(f"{prefix}:{name}", count=_SLICE):
            found[field] = value
    return changes_of(hashes)
