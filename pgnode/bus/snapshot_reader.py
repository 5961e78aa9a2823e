"""A worker's side of the snapshots: follows them for as long as the worker lives.

Pub/sub loses messages across a reconnect without an error, so an announcement only means "read it again". The reader subscribes
first and then reads the keys, reads again on every announcement of a revision that it does not hold, and reads all of them
once in a while (``poll_seconds``) whatever was announced. A snapshot that is no longer there (Redis was emptied) stays as it was.
A large one is mapped where it is shared; where that cannot be done, it is read from Redis. A reader for workers without a
supervisor beside them only notes that there is a newer block, and fetches it when it is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import structlog

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.indexed import Body
from pgnode.bus.keys import NOT_MAPPED_TTL_SECONDS, Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.redis_compat import Args
from pgnode.bus.snapshots import ALL, BLOCKS, Snapshot, decode_announcement
from pgnode.bus.subscription import Subscription
from pgnode.errors import NodeError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.lasting import keep_going
from pgnode.os_support.shared_memory import open_shared

log = structlog.get_logger(__name__)

#: Seconds within which every key is read, whatever was announced.
POLL_SECONDS = 2.0

#: Seconds within which a large block is fetched from another host, or asked for again.
FETCH_SECONDS = 5.0

#: Fetches a block by its name and revision; returns the revision that came, and the block.
Fetch = Callable[[str, int], Awaitable[tuple[int, Body]]]

#: Seconds before a lost connection is tried again.
RECONNECT_SECONDS = 0.2


#: Fields of a snapshot's hash.
_ALL_FIELDS: Final = ("rev", "at_ms", "body", "shared")


def _fields_of(key: str, *fields: str) -> Args:
    """Return the command that reads some fields of a snapshot's hash."""
    return ("HMGET", key, *fields)


class SnapshotReader:
    """Holds the newest revision of each snapshot. Belongs to one event loop.

    Args:
        url: Address of Redis.
        keys: The node's keys.
        on_change: Called with each new revision, within the event loop.
        poll_seconds: Seconds within which every key is read, whatever was announced.
        open_shared: Maps shared memory; None where it cannot be mapped.
        fetch: Fetches a large block that is shared on another host, by its name and revision; returns the revision that came, and
            the block. None: the supervisor is on this host.
        on_behind: Called with name and revision of a newer block that is fetched when it is wanted.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        on_change: Callable[[Snapshot], None],
        *,
        poll_seconds: float = POLL_SECONDS,
        open_shared: Callable[[str], memoryview | None] = open_shared,
        fetch: Fetch | None = None,
        on_behind: Callable[[str, int], None] = lambda _name, _rev: None,
    ) -> None:
        self._fetch = fetch
        self._on_behind = on_behind
        #: Blocks of which there is a newer revision than the one that is held.
        self._behind: dict[str, int] = {}
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._open = open_shared
        self._keys = keys
        self._on_change = on_change
        self._poll_seconds = poll_seconds
        self._held: dict[str, Snapshot] = {}
        self._redis = PipelinedRedis(url)
        self._subscription = Subscription(url, keys.snapshots_channel, self._heard, self._subscription_lost)
        #: Names of what was announced and has to be read.
        self._to_read: set[str] = set()
        #: Set when there is some, or the subscription is lost.
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: One poll at a time: a slower, older answer must not win over a newer one.
        self._polling = asyncio.Lock()
        #: Loop time of the last complete poll, None before the first.
        self.polled_at: float | None = None
        #: Whether the log says already that Redis is away.
        self._away = False

    def __repr__(self) -> str:
        return f"SnapshotReader({', '.join(f'{s.name}@{s.rev}' for s in self._held.values())})"

    def get(self, name: str) -> Snapshot | None:
        """Return the revision that is held; None before the first."""
        return self._held.get(name)

    def start(self) -> None:
        """Follow the snapshots until :meth:`close`."""
        self._task = asyncio.create_task(keep_going("snapshots", self._run))

    async def close(self) -> None:
        """End following, and the connections."""
        await end_tasks([*self._fetching.values(), *([self._task] if self._task is not None else [])])
        self._subscription.close()
        self._redis.drop()

    def has_unheard(self) -> bool:
        """Tell whether an announcement has come that is taken over in the next turn of the event loop."""
        return self._subscription.has_unheard()

    def want(self, name: str) -> None:
        """Fetch a block of which there is a newer revision; it comes as every other snapshot does."""
        under_way = self._fetching.get(name)
        if name in self._behind and (under_way is None or under_way.done()):
            self._fetching[name] = asyncio.create_task(self._get(name))

    async def _get(self, name: str) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                said: list[Any] = await self._redis.execute(*_fields_of(self._keys.snapshot(name), *_ALL_FIELDS))
                if said[0] is None:
                    return
                found, shared = Snapshot(name, int(said[0]), int(said[1]), said[2]), said[3]
                if shared and (view := self._open(shared.decode())) is not None:
                    found = replace(found, body=view)
                elif shared and self._fetch is not None:
                    rev, fetched = await self._fetch(name, found.rev)
                    found = replace(found, rev=rev, body=fetched)
                self._behind.pop(name, None)
                self._take(found)
        except (*BUS_ERRORS, NodeError) as error:
            log.debug("snapshot not fetched", name=name, error=str(error))

    async def poll(self, names: tuple[str, ...] = ALL) -> None:
        """Read the revisions, and the bodies of those that are new.

        Args:
            names: The snapshots to read.

        Raises:
            RedisError: Redis cannot do it now (one of BUS_ERRORS).
            OSError: Redis is away.
        """
        async with self._polling:
            await self._poll(names)

    async def _poll(self, names: tuple[str, ...]) -> None:
        before = {name: self._held.get(name) for name in names}
        revisions = [
            rev
            for [rev] in await self._redis.pipeline([_fields_of(self._keys.snapshot(name), "rev") for name in names])
        ]
        # A revision that went backwards was written by a supervisor on a host with another clock: take it too.
        stale = [
            name
            for name, rev in zip(names, revisions, strict=True)
            if rev is not None and (name not in self._held or int(rev) != self._held[name].rev)
        ]
        if stale:
            shared, plain = [name for name in stale if name in BLOCKS], [name for name in stale if name not in BLOCKS]
            if self._fetch is not None:
                found = await self._at_hand(dict(zip(names, revisions, strict=True)), shared)
                found |= await self._read(plain) if plain else {}
            else:
                found = await self._mapped(shared) if shared else {}
                found |= await self._read([*plain, *(name for name in shared if name not in found)])
            for name in stale:
                # What was announced meanwhile, and came along, is newer than what was read.
                if name in found and self._held.get(name) is before[name]:
                    self._take(found[name])
        if names is ALL:
            self.polled_at = asyncio.get_running_loop().time()

    async def _at_hand(self, revisions: Mapping[str, bytes], names: list[str]) -> dict[str, Snapshot]:
        """Map those that are shared on this host, and note of the others that there are newer ones."""
        news = [name for name in names if self._behind.get(name) != int(revisions[name])]
        found = await self._mapped(news) if news else {}
        for name in news:
            if name in found:
                self._behind.pop(name, None)
            else:
                rev = self._behind[name] = int(revisions[name])
                self._on_behind(name, rev)
        return found

    async def _mapped(self, names: list[str]) -> dict[str, Snapshot]:
        """Map those that are shared, and can be mapped here."""
        said = await self._redis.pipeline(
            [_fields_of(self._keys.snapshot(name), "rev", "at_ms", "shared") for name in names]
        )
        found: dict[str, Snapshot] = {}
        for name, (rev, at_ms, shared) in zip(names, said, strict=True):
            if shared and (view := self._open(shared.decode())) is not None:
                found[name] = Snapshot(name, int(rev), int(at_ms), view)
        return found

    async def _read(self, names: list[str]) -> dict[str, Snapshot]:
        """Read bodies from Redis. Where they are shared alone and cannot be mapped, the supervisor is told, and writes them."""
        said = await self._redis.pipeline([_fields_of(self._keys.snapshot(name), *_ALL_FIELDS) for name in names])
        found: dict[str, Snapshot] = {}
        for name, (rev, at_ms, body, shared) in zip(names, said, strict=True):
            if rev is None:
                continue
            if body or not shared:
                found[name] = Snapshot(name, int(rev), int(at_ms), body)
            elif (view := self._open(shared.decode())) is not None:
                found[name] = Snapshot(name, int(rev), int(at_ms), view)
            else:
                await self._redis.execute("SET", self._keys.not_mapped, shared, "EX", NOT_MAPPED_TTL_SECONDS)
        return found

    def _take(self, snapshot: Snapshot) -> None:
        self._held[snapshot.name] = snapshot
        self._on_change(snapshot)

    async def announced(self, data: bytes) -> None:
        """Take over what an announcement says, or read the key.

        Args:
            data: The message, as it came over pub/sub.
        """
        name = self._take_announced(data)
        if name:
            await self.poll((name,))

    def _take_announced(self, data: bytes) -> str:
        """Take over what an announcement says; return the name of what has to be read, "" where nothing has to be."""
        try:
            found = decode_announcement(data)
        except ValueError as error:
            log.warning("announcement not readable", error=str(error))
            return ""
        held = self._held.get(found.name)
        if found.name not in ALL or (held is not None and held.rev == found.rev):
            return ""
        if found.body is not None and (held is None or held.rev < found.rev):
            self._behind.pop(found.name, None)
            self._take(Snapshot(found.name, found.rev, found.at_ms, found.body))
            return ""
        return found.name

    def _heard(self, data: bytes) -> None:
        try:
            name = self._take_announced(data)
        except Exception:
            log.exception("a new snapshot could not be taken over, it is read with the next poll")
            return
        if name:
            self._to_read.add(name)
            self._stirred.set()

    def _subscription_lost(self) -> None:
        self._stirred.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except BUS_ERRORS as error:
                if not self._away:
                    self._away = True
                    log.warning("snapshots not reachable, serving the last ones", error=str(error))
                await asyncio.sleep(RECONNECT_SECONDS)
            finally:
                self._subscription.close()

    async def _follow(self) -> None:
        """Follow them until the subscription is lost. Raises BUS_ERRORS."""
        loop, stirred = asyncio.get_running_loop(), self._stirred
        await self._subscription.open()
        await self.poll()
        self._away = False
        next_poll = loop.time() + self._poll_seconds
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_poll):
                    await stirred.wait()
            stirred.clear()
            if (lost := self._subscription.error) is not None:
                raise lost
            names, self._to_read = self._to_read, set()
            if loop.time() >= next_poll:
                await self.poll()
                next_poll = loop.time() + self._poll_seconds
            elif names:
                await self.poll(tuple(names))
