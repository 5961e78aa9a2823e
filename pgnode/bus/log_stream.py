"""The capped stream of log lines: written by the supervisor in batches, read by a worker while somebody watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pgnode.bus.connection import BUS_ERRORS, connect, stream_entries
from pgnode.bus.keys import Keys

#: Lines in one stream entry at most; many lines in an entry cost Redis little when the core logs a lot.
LINES_PER_ENTRY = 200

#: How long one read of new lines blocks in Redis.
BLOCK_MS = 5000

#: Entries read at once.
READ_MAX = 100

#: Pause before a lost connection is tried again.
RECONNECT_SECONDS = 0.5


def put_lines(pipe: Pipeline, keys: Keys, lines: Sequence[bytes], keep: int) -> None:
    """Add lines to the stream.

    The stream is capped by entries, and an entry may hold one line, so a quiet core's lines are never lost early.

    Args:
        pipe: Takes the commands.
        keys: The node's keys.
        lines: Bytes without a line end.
        keep: About so many lines stay in the stream.
    """
    for at in range(0, len(lines), LINES_PER_ENTRY):
        batch = lines[at : at + LINES_PER_ENTRY]
        pipe.xadd(keys.log, {"lines": b"\n".join(batch)}, maxlen=keep, approximate=True)


class LogReader:
    """One worker's reader of the stream; one at a time is enough for any number of viewers.

    Args:
        url: Address of Redis.
        keys: The node's keys.
        reconnect_seconds: Pause before a lost connection is tried again.
    """

    def __init__(self, url: str, keys: Keys, *, reconnect_seconds: float = RECONNECT_SECONDS) -> None:
        self._keys = keys
        self._reconnect_seconds = reconnect_seconds
        self._client: Redis = connect(url, timeout_seconds=BLOCK_MS / 1000 + 2, connections=2)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def tail(self, lines: int) -> tuple[str, list[bytes]]:
        """Read the end of the stream, for a viewer that joins. Raises BUS_ERRORS.

        Args:
            lines: How many lines at most.

        Returns:
            Id of the last entry, and the last lines.
        """
        newest = stream_entries([(b"", await self._client.xrevrange(self._keys.log, count=max(1, lines)))])
        if not newest:
            return "0-0", []
        found = [line for _, fields in reversed(newest) for line in fields[b"lines"].split(b"\n")]
        return newest[0][0], found[-lines:] if lines else []

    async def follow(self, after: str) -> AsyncIterator[tuple[str, list[bytes]]]:
        """Follow the stream without end; survives a Redis that goes and comes back.

        Args:
            after: The entry after which to begin.

        Yields:
            Ids of entries, and their lines.
        """
        last = after
        while True:
            try:
                answer = await self._client.xread({self._keys.log: last}, count=READ_MAX, block=BLOCK_MS)
            except BUS_ERRORS:
                await asyncio.sleep(self._reconnect_seconds)
                continue
            for entry_id, fields in stream_entries(answer):
                last = entry_id
                yield entry_id, fields[b"lines"].split(b"\n")
