"""Snapshots: what reads are answered from. The supervisor writes them, each worker keeps its own copy in memory.

A snapshot is a hash (``rev``, ``at_ms``, ``body``); its new revision is announced over pub/sub. Pub/sub loses messages
across a reconnect without a word, so an announcement only means "look again": a reader subscribes first and then reads
the keys, reads again on every announcement of a revision that it does not hold, and looks at all of them once in
LOOK_SECONDS whatever was announced. The announcement of a small snapshot brings it along, which saves the look.

==================  ======================================================================================
name                body
==================  ======================================================================================
``state``           :class:`NodeStatus` as JSON
``system``          ``SystemStatsResponse``
``backend``         ``BackendStatsResponse``
``stats.users``     indexed block: ``StatResponse`` pieces by e-mail
``stats.inbounds``  indexed block: ``StatResponse`` pieces by tag
``stats.outbounds`` indexed block: ``StatResponse`` pieces by tag
``polled``          :class:`Polled` as JSON; comes with every reading of the core, also where nothing moved
``online``          indexed block: ``StatsOnlineIpListResponse`` by e-mail, online users only
==================  ======================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.os_support.aio import end_tasks

log = structlog.get_logger(__name__)

STATE = "state"
SYSTEM = "system"
BACKEND = "backend"
STATS_USERS = "stats.users"
STATS_INBOUNDS = "stats.inbounds"
STATS_OUTBOUNDS = "stats.outbounds"
ONLINE = "online"
POLLED = "polled"
ALL = (STATE, SYSTEM, BACKEND, STATS_USERS, STATS_INBOUNDS, STATS_OUTBOUNDS, ONLINE, POLLED)

#: A reader looks at every key at least this often.
LOOK_SECONDS = 2.0

#: Snapshots up to this size come with their announcement.
INLINE_BYTES = 2048

#: Pause before a lost connection is tried again.
RECONNECT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The node's state as workers need it to answer; units in names."""

    #: Name of the supervisor's state: idle, starting, running, recovering, failed, lingering, stopping.
    state: str
    #: The core runs and its API answered at the last look.
    core_ready: bool
    core_version: str
    node_version: str
    #: Why the core's API did not answer at the last look, "" when it did.
    core_api_error: str
    #: Number of the core run, counted since the state folder was made; a new core has a new one.
    core_run: int
    #: Workers tell of calls (pgnode.bus.activity) while this is above 0: the silence after which the panel is missed.
    keep_alive_seconds: int = 0
    #: The panel has been silent for longer than that.
    degraded: bool = False
    #: How often each way was taken at a start ("same core", "parts", "new core"; "parts, failed" became a new core),
    #: since the supervisor began.
    starts: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, body: bytes) -> NodeStatus:
        return cls(**json.loads(body))


@dataclass(frozen=True, slots=True)
class Polled:
    """How old the statistics are: ages, not times, since hosts disagree about the time and clocks are set."""

    #: Milliseconds since the last reading of the core that succeeded, when this was sent; None before the first one.
    age_ms: int | None
    #: Milliseconds between two readings.
    interval_ms: int
    #: Why the last attempt failed, "" when it did not.
    error: str
    #: Counters that the node keeps books of, and milliseconds that the last reading took, for the operator.
    counters: int = 0
    took_ms: int = 0
    #: When this was sent, Unix milliseconds of the store's clock; 0 where that is not known.
    sent_at_ms: int = 0

    def age_seconds(self, now_ms: float) -> float | None:
        """Since the core was read, at ``now_ms`` of the store's clock; None where it never was."""
        if self.age_ms is None:
            return None
        since_ms = max(0.0, now_ms - self.sent_at_ms) if self.sent_at_ms else 0.0
        return (self.age_ms + since_ms) / 1000

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, body: bytes) -> Polled:
        return cls(**json.loads(body))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot as a reader holds it."""

    name: str
    rev: int
    #: When the supervisor made it, Unix milliseconds of its clock.
    at_ms: int
    body: bytes


class SnapshotWriter:
    """The supervisor's side. Revisions begin at the clock's milliseconds, so that they rise across restarts."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._rev = int(time.time() * 1000)
        self._current: dict[str, Snapshot] = {}

    def get(self, name: str) -> Snapshot | None:
        return self._current.get(name)

    def put(self, pipe: Pipeline, name: str, body: bytes) -> None:
        """Add the writing and the announcement of a new revision of ``name`` to ``pipe``."""
        self._rev += 1
        self._current[name] = Snapshot(name, self._rev, int(time.time() * 1000), body)
        self._write(pipe, self._current[name])

    def put_all(self, pipe: Pipeline) -> None:
        """Write every snapshot again, into a Redis that came back empty."""
        for snapshot in self._current.values():
            self._write(pipe, snapshot)

    def _write(self, pipe: Pipeline, snapshot: Snapshot) -> None:
        fields: dict[str, bytes | int] = {"rev": snapshot.rev, "at_ms": snapshot.at_ms, "body": snapshot.body}
        pipe.hset(self._keys.snapshot(snapshot.name), mapping=fields)  # type: ignore[arg-type]
        head = f"{snapshot.name} {snapshot.rev} {snapshot.at_ms}".encode()
        inline = len(snapshot.body) <= INLINE_BYTES
        pipe.publish(self._keys.snapshots_channel, head + b"\n" + snapshot.body if inline else head)


class SnapshotReader:
    """A worker's copy of the snapshots. ``on_change`` is called with each new one, within the event loop."""

    def __init__(self, url: str, keys: Keys, on_change: Callable[[Snapshot], None]) -> None:
        self._keys = keys
        self._on_change = on_change
        self._held: dict[str, Snapshot] = {}
        self._client: Redis = connect(url, connections=2)
        self._listener: Redis = connect(url, timeout_seconds=LOOK_SECONDS + 2, connections=1)
        self._task: asyncio.Task[None] | None = None
        #: One look at a time: a slower, older answer must not win over a newer one.
        self._looking = asyncio.Lock()
        #: Monotonic time of the last complete look at the keys, None before the first.
        self.looked_at: float | None = None

    def __repr__(self) -> str:
        return f"SnapshotReader({', '.join(f'{s.name}@{s.rev}' for s in self._held.values())})"

    def get(self, name: str) -> Snapshot | None:
        return self._held.get(name)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            await end_tasks([self._task])
        await self._client.aclose()
        await self._listener.aclose()

    async def look(self, names: tuple[str, ...] = ALL) -> None:
        """Read the revisions of ``names`` and the bodies of those that are new. Raises BUS_ERRORS."""
        async with self._looking:
            await self._look(names)

    async def _look(self, names: tuple[str, ...]) -> None:
        before = {name: self._held.get(name) for name in names}
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hget(self._keys.snapshot(name), "rev")
        revisions = await pipe.execute()
        # A revision that went backwards was written by a supervisor on a host with another clock: take it too.
        stale = [
            name
            for name, rev in zip(names, revisions, strict=True)
            if rev is not None and (name not in self._held or int(rev) != self._held[name].rev)
        ]
        if stale:
            pipe = self._client.pipeline(transaction=False)
            for name in stale:
                pipe.hmget(self._keys.snapshot(name), ["rev", "at_ms", "body"])
            for name, (rev, at_ms, body) in zip(stale, await pipe.execute(), strict=True):
                # What was announced meanwhile, and came along, is newer than what was read.
                if rev is not None and self._held.get(name) is before[name]:
                    self._held[name] = Snapshot(name, int(rev), int(at_ms), body)
                    self._on_change(self._held[name])
        if names is ALL:
            self.looked_at = asyncio.get_running_loop().time()

    async def _announced(self, data: bytes) -> None:
        head, inline, body = data.partition(b"\n")
        name, rev, at_ms = head.decode().split(" ")
        held = self._held.get(name)
        if name not in ALL or (held is not None and held.rev == int(rev)):
            return
        if inline and (held is None or held.rev < int(rev)):
            self._held[name] = Snapshot(name, int(rev), int(at_ms), body)
            self._on_change(self._held[name])
        else:
            await self.look((name,))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            pubsub = self._listener.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(self._keys.snapshots_channel)
                await self.look()
                next_look = loop.time() + LOOK_SECONDS
                while True:
                    message = await pubsub.get_message(timeout=max(0.01, next_look - loop.time()))
                    if message is not None:
                        await self._announced(message["data"])
                    if loop.time() >= next_look:
                        await self.look()
                        next_look = loop.time() + LOOK_SECONDS
            except BUS_ERRORS as error:
                log.warning("snapshots not reachable, serving the last ones", error=str(error))
                await asyncio.sleep(RECONNECT_SECONDS)
            finally:
                with contextlib.suppress(*BUS_ERRORS):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
