"""Large snapshots on hosts that the supervisor is not on: one worker of a host fetches each, and shares it with its neighbours.

A worker that wants a revision first looks whether a neighbour has it, in memory that it can map. If not, it says that it fetches
it, has the supervisor write it to Redis (once for all hosts), gets it, and says where it is. A host is whatever can look into one
another's ``/proc``: the same boot, the same pid namespace and the same user.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.indexed import Body
from pgnode.bus.keys import COPY_TTL_SECONDS, COPYING_TTL_MS, Keys
from pgnode.errors import BusUnavailableError
from pgnode.os_support.shared_memory import SharedBytes, open_shared, share

log = structlog.get_logger(__name__)

#: Seconds between two looks whether a neighbour has fetched it.
POLL_INTERVAL_SECONDS = 0.02

#: Seconds that a connection has to bring a large snapshot.
TRANSFER_SECONDS = 4.0

#: Has the supervisor write a snapshot where it can be fetched, by its name; returns its revision, 0 where there is none.
Bring = Callable[[str], Awaitable[int]]


def this_host() -> str:
    """Name what can map one another's memory: in this pid namespace, on this boot of this host, and of this user."""
    parts = [str(os.geteuid())]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            found = Path(path)
            parts.append(str(found.readlink()) if found.is_symlink() else found.read_text(encoding="ascii").strip())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class HostCopies:
    """Belongs to one event loop.

    Args:
        url: Address of Redis.
        keys: The node's keys.
        bring: Has the supervisor write a snapshot where it can be fetched.
        host: What can map one another's memory.
        put: Puts bytes where other processes can map them.
        look: Maps what another process has put there; None where it is not there.
        copying_ms: For how long, at most, neighbours wait for a worker that fetches.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        bring: Bring,
        *,
        host: str = "",
        put: Callable[[bytes], SharedBytes] = share,
        look: Callable[[str], memoryview | None] = open_shared,
        copying_ms: int = COPYING_TTL_MS,
    ) -> None:
        self._copying_ms = copying_ms
        self._redis: Redis = connect(url, timeout_seconds=TRANSFER_SECONDS, connections=4)
        self._keys = keys
        self._bring = bring
        self._host = host or this_host()
        self._put = put
        self._look = look
        self._token = secrets.token_hex(8)
        #: What this worker fetched for its host, by name.
        self._held: dict[str, SharedBytes] = {}

    def __repr__(self) -> str:
        return f"HostCopies({self._host}, {', '.join(self._held) or 'nothing'})"

    async def close(self) -> None:
        """Let go of everything: neighbours that map it go on."""
        for shared in self._held.values():
            shared.close()
        self._held.clear()
        await self._redis.aclose()

    async def fetch(self, name: str, rev: int) -> tuple[int, Body]:
        """Return a snapshot, from a neighbour or from the supervisor. Cancelled when it takes too long.

        Args:
            name: The snapshot.
            rev: The revision that is wanted; a newer one may come.

        Returns:
            The revision that came, and the snapshot.

        Raises:
            NodeError: The supervisor does not bring it, or Redis has lost it.
            RedisError: Redis cannot do it now (one of BUS_ERRORS).
            OSError: Redis is away.
        """
        copying = self._keys.copying(self._host, name)
        while True:
            found = await self._of_neighbour(name, rev)
            if found is not None:
                return found
            if await self._redis.set(copying, self._token, nx=True, px=self._copying_ms):
                try:
                    # A neighbour may have fetched it between that look and this moment.
                    return await self._of_neighbour(name, rev) or await self._of_supervisor(name)
                finally:
                    with contextlib.suppress(*BUS_ERRORS):
                        await self._redis.unlink(copying)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _of_neighbour(self, name: str, rev: int) -> tuple[int, Body] | None:
        """Map what a worker of this host has fetched; None where that is not what is wanted."""
        said = await self._redis.get(self._keys.copy(self._host, name))
        there, _, handle = said.decode(errors="replace").partition(" ") if isinstance(said, bytes) else ("", "", "")
        # Numbers of a supervisor whose clock is behind may be lower: only what was asked for is known to be new.
        if there != str(rev):
            return None
        view = self._look(handle)
        return (rev, view) if view is not None else None

    async def _of_supervisor(self, name: str) -> tuple[int, Body]:
        """Fetch what the supervisor has now, and let the neighbours know."""
        rev = await self._bring(name)
        body = await self._redis.get(self._keys.brought(name, rev))
        if not isinstance(body, bytes):
            raise BusUnavailableError("the node's Redis has lost these figures, try again")
        try:
            shared = self._put(body)
        except OSError as error:
            log.debug("fetched for this worker alone", name=name, error=str(error))
            return rev, body
        before, self._held[name] = self._held.get(name), shared
        await self._redis.set(self._keys.copy(self._host, name), f"{rev} {shared.handle}", ex=COPY_TTL_SECONDS)
        if before is not None:
            before.close()
        return rev, shared.view
