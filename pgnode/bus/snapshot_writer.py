"""The supervisor's side of the snapshots: writes and announces new revisions."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pgnode.bus.keys import BROUGHT_TTL_SECONDS, Keys
from pgnode.bus.snapshot_memory import SnapshotMemory
from pgnode.bus.snapshots import BLOCKS, SHARED_BYTES, Snapshot, encode_announcement

__all__ = ["SnapshotMemory", "SnapshotWriter"]


class SnapshotWriter:
    """Numbers the revisions and keeps the current ones. They begin at the clock's milliseconds, so they rise across restarts.

    Args:
        keys: The node's keys.
        above: The last revision of the supervisor before, where that is known: clocks are set back now and then.
        memory: Shares large ones; None: none are.
    """

    def __init__(self, keys: Keys, above: int = 0, memory: SnapshotMemory | None = None) -> None:
        self._keys = keys
        self._memory = memory
        #: Name -> the revision of which workers on other hosts can fetch the body.
        self._brought: dict[str, int] = {}
        self._bringing = asyncio.Lock()
        self._rev = max(int(time.time() * 1000), above)
        self._current: dict[str, Snapshot] = {}
        #: Those that were current when Redis was looked at last.
        self._looked_at: dict[str, Snapshot] = {}

    def __repr__(self) -> str:
        return f"SnapshotWriter({', '.join(f'{s.name}@{s.rev}' for s in self._current.values())})"

    @property
    def last_revision(self) -> int:
        """The number of the last revision."""
        return self._rev

    def get(self, name: str) -> Snapshot | None:
        """Return the current revision of ``name``; None before the first."""
        return self._current.get(name)

    def put(self, pipe: Pipeline, name: str, body: bytes) -> None:
        """Add the writing and the announcement of a new revision to a pipeline.

        Args:
            pipe: Takes the commands.
            name: Name of the snapshot.
            body: What it holds from here on.
        """
        self._rev += 1
        snapshot = Snapshot(name, self._rev, int(time.time() * 1000), body)
        if self._memory is not None and name in BLOCKS and len(body) >= SHARED_BYTES:
            shared = self._memory.put(name, body)
            if shared is not None:
                snapshot = replace(snapshot, body=shared.view, shared=shared.handle)
        self._current[name] = snapshot
        self._write(pipe, snapshot, body)

    def published(self) -> None:
        """Take note that Redis has what was put."""
        if self._memory is not None:
            self._memory.published()

    async def write_missing(self, redis: Redis) -> list[str]:
        """Write again what Redis lost: it may have been emptied, restarted or replaced. To be called now and then.

        What was put since the last call is perhaps on its way still; whether that is lost is found by the next one.

        Args:
            redis: The client that writes them.

        Returns:
            The names of what was written again.

        Raises:
            BUS_ERRORS: Redis is away.
        """
        looked_at, self._looked_at = self._looked_at, dict(self._current)
        held = self._looked_at
        pipe = redis.pipeline(transaction=False)
        pipe.get(self._keys.not_mapped)
        for name in held:
            pipe.hget(self._keys.snapshot(name), "rev")
        not_mapped, *revisions = await pipe.execute()
        unshared = self._memory is not None and not_mapped and self._memory.cannot_be_mapped(not_mapped.decode())
        pipe = redis.pipeline(transaction=True)
        missing = []
        for (name, snapshot), rev in zip(held.items(), revisions, strict=True):
            behind = (rev is None or int(rev) < snapshot.rev) and looked_at.get(name) is snapshot
            lost = behind or (unshared and snapshot.shared)
            # What was put meanwhile is being written, or will be with the next snapshot.
            if lost and self._current[name] is snapshot:
                missing.append(name)
                body = bytes(snapshot.body)
                if snapshot.shared and not (self._memory is not None and self._memory.works):
                    snapshot = self._current[name] = replace(snapshot, body=body, shared="")  # noqa: PLW2901
                self._write(pipe, snapshot, body)
        if missing:
            await pipe.execute()
        return missing

    async def bring(self, redis: Redis, name: str) -> int:
        """Write the body of one that is shared where workers on other hosts can fetch it; once, however many ask.

        Args:
            redis: The client that writes it.
            name: Name of the snapshot.

        Returns:
            Its revision; 0 where there is none.

        Raises:
            BUS_ERRORS: Redis is away.
        """
        async with self._bringing:
            snapshot = self._current.get(name)
            if snapshot is None:
                return 0
            before = self._brought.get(name, 0)
            key = self._keys.brought(name, snapshot.rev)
            # A Redis that came back empty has lost it.
            if before != snapshot.rev or not await redis.expire(key, BROUGHT_TTL_SECONDS):
                pipe = redis.pipeline(transaction=False)
                pipe.set(key, bytes(snapshot.body), ex=BROUGHT_TTL_SECONDS)
                if before not in (0, snapshot.rev):
                    pipe.unlink(self._keys.brought(name, before))
                await pipe.execute()
                self._brought[name] = snapshot.rev
            return snapshot.rev

    def _write(self, pipe: Pipeline, snapshot: Snapshot, body: bytes) -> None:
        fields: dict[str, bytes | int | str] = {
            "rev": snapshot.rev,
            "at_ms": snapshot.at_ms,
            "body": b"" if snapshot.shared else body,
            "shared": snapshot.shared,
        }
        pipe.hset(self._keys.snapshot(snapshot.name), mapping=fields)  # type: ignore[arg-type]
        pipe.publish(self._keys.snapshots_channel, encode_announcement(snapshot))
