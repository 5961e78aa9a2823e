"""The supervisor's side of the snapshots: writes and announces new revisions."""

from __future__ import annotations

import time

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import Snapshot, encode_announcement


class SnapshotWriter:
    """Numbers the revisions and keeps the current ones. They begin at the clock's milliseconds, so they rise across restarts.

    Args:
        keys: The node's keys.
        above: The last revision of the supervisor before, where that is known: clocks are set back now and then.
    """

    def __init__(self, keys: Keys, above: int = 0) -> None:
        self._keys = keys
        self._rev = max(int(time.time() * 1000), above)
        self._current: dict[str, Snapshot] = {}

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
        self._current[name] = Snapshot(name, self._rev, int(time.time() * 1000), body)
        self._write(pipe, self._current[name])

    async def write_missing(self, redis: Redis) -> list[str]:
        """Write again what Redis lost: it may have been emptied, restarted or replaced.

        Args:
            redis: The client that writes them.

        Returns:
            The names of what was written again.

        Raises:
            BUS_ERRORS: Redis is away.
        """
        held = dict(self._current)
        pipe = redis.pipeline(transaction=False)
        for name in held:
            pipe.hget(self._keys.snapshot(name), "rev")
        revisions = await pipe.execute()
        pipe = redis.pipeline(transaction=True)
        missing = []
        for (name, snapshot), rev in zip(held.items(), revisions, strict=True):
            # What was put meanwhile is being written, or will be with the next snapshot.
            if (rev is None or int(rev) < snapshot.rev) and self._current[name] is snapshot:
                missing.append(name)
                self._write(pipe, snapshot)
        if missing:
            await pipe.execute()
        return missing

    def _write(self, pipe: Pipeline, snapshot: Snapshot) -> None:
        fields: dict[str, bytes | int] = {"rev": snapshot.rev, "at_ms": snapshot.at_ms, "body": snapshot.body}
        pipe.hset(self._keys.snapshot(snapshot.name), mapping=fields)  # type: ignore[arg-type]
        pipe.publish(self._keys.snapshots_channel, encode_announcement(snapshot))
