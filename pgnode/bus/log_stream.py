"""The stream of log lines: written by the supervisor in batches while somebody watches, read by each worker that has viewers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS, stream_entries
from pgnode.bus.keys import LOG_ENTRIES_MAX, LOG_TTL_SECONDS, NODE_LOG_MAX, Keys
from pgnode.bus.log_batches import LogBatch
from pgnode.bus.pipelined_redis import PipelinedRedis, entries_of
from pgnode.bus.redis_compat import Args
from pgnode.bus.stream_ids import BEGINNING, entry_order

#: How long one read of new lines blocks in Redis.
BLOCK_MS = 5000

#: Entries read at once.
READ_MAX = 16

#: Pause before a lost connection is tried again.
RECONNECT_SECONDS = 0.5


def put_batches(keys: Keys, batches: Iterable[LogBatch]) -> list[Args]:
    """Return the commands that add batches to the stream."""
    commands: list[Args] = []
    for batch in batches:
        fields = [part for pair in batch.fields().items() for part in pair]
        commands.append(("XADD", keys.log, "MAXLEN", LOG_ENTRIES_MAX, "*", *fields))
    if commands:
        commands.append(("EXPIRE", keys.log, LOG_TTL_SECONDS))
    return commands


def put_node_lines(keys: Keys, lines: Sequence[bytes]) -> list[Args]:
    """Return the commands that keep the node's own lines for operators."""
    return [("XADD", keys.node_log, "MAXLEN", "~", NODE_LOG_MAX, "*", "line", line) for line in lines]


async def node_lines(redis: Redis, keys: Keys, count: int) -> list[bytes]:
    """Return the node's own last lines, in order. Raises BUS_ERRORS.

    Args:
        redis: The client.
        keys: The node's keys.
        count: How many at most.

    Returns:
        The lines.
    """
    found = stream_entries([(b"", await redis.xrevrange(keys.node_log, count=count))])
    return [fields[b"line"] for _, fields in reversed(found)]


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
        self._asking = PipelinedRedis(url)
        self._following = PipelinedRedis(url, timeout_seconds=BLOCK_MS / 1000 + 2)

    def __repr__(self) -> str:
        return f"LogReader({self._keys.log})"

    def close(self) -> None:
        """Disconnect."""
        self._asking.drop()
        self._following.drop()

    async def newest(self) -> str:
        """Return the id of the last entry. Raises BUS_ERRORS."""
        found = await self._asking.execute("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1)
        return found[0][0].decode() if found else BEGINNING

    async def follow(self, after: str) -> AsyncIterator[tuple[str, LogBatch]]:
        """Follow the stream without end; survives a Redis that goes and comes back. One at a time.

        Args:
            after: The entry after which to begin.

        Yields:
            Ids of entries, and what they hold; those of another version are left out.
        """
        last, reconnecting = after, False
        while True:
            read = ("XREAD", "COUNT", READ_MAX, "BLOCK", BLOCK_MS, "STREAMS", self._keys.log, last)
            try:
                if reconnecting and await self._is_another(last):
                    last, reconnecting = BEGINNING, False
                    continue
                answer = await self._following.execute(*read)
            except BUS_ERRORS:
                reconnecting = True
                await asyncio.sleep(self._reconnect_seconds)
                continue
            except asyncio.CancelledError:
                # Its answer would be taken for that to the next question.
                self._following.drop()
                raise
            reconnecting = False
            for entry_id, fields in entries_of(answer):
                last = entry_id
                try:
                    batch = LogBatch.of(fields)
                except (KeyError, ValueError):
                    continue
                yield entry_id, batch

    async def _is_another(self, last: str) -> bool:
        """Whether the stream is another one than that in which an entry was read; its clock may be behind. Raises BUS_ERRORS."""
        found = await self._following.execute("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1)
        return not found or entry_order(found[0][0].decode()) < entry_order(last)
