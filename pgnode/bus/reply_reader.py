"""Reads the answers to a worker's commands, and finds commands that were lost.

Redis is a bus and may lose what is in it. A command is lost when its entry is no longer in the stream and there is no answer: an
answer is added in the transaction that removes the entry, so a worker that finds first no entry and then no answer knows that
it is lost. Such a command is sent again. This is checked for commands that have waited for a while, and for all of them after
a connection was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from pgnode.bus.command_sender import AWAY_TEXT
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.key_types import remove_other_types, says_other_type
from pgnode.bus.keys import Keys
from pgnode.bus.pending import PendingCommand, PendingCommands
from pgnode.bus.pipelined_redis import PipelinedRedis, entries_of
from pgnode.bus.stream_ids import entry_order
from pgnode.bus.waits import CLIENT_WAITS, ClientWaits
from pgnode.errors import BusUnavailableError

log = structlog.get_logger(__name__)

#: Entries of answers read at once.
READ_MAX = 512


class ReplyReader:
    """Hands the answers over. Belongs to one event loop.

    Args:
        redis: The connection to read on; its limit must be above what a read blocks.
        keys: The node's keys.
        worker: Name of this worker.
        pending: Who waits for answers.
        send_again: Takes commands that were lost.
        waits: How long to wait for what.
    """

    def __init__(
        self,
        redis: PipelinedRedis,
        keys: Keys,
        worker: str,
        pending: PendingCommands,
        send_again: Callable[[Sequence[PendingCommand]], None],
        *,
        waits: ClientWaits = CLIENT_WAITS,
    ) -> None:
        self._redis = redis
        self._commands_key = keys.commands
        self._key = keys.replies(worker)
        self._pending = pending
        self._send_again = send_again
        self._waits = waits
        self._block_ms = round(waits.block_seconds * 1000)
        #: The last entry of answers that was read.
        self._last = "0-0"
        self._away_since: float | None = None
        self._swept_at = 0.0
        self._searched_at = 0.0

    def __repr__(self) -> str:
        return f"ReplyReader(after {self._last})"

    async def run(self) -> None:
        """Read until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            reconnecting = self._away_since is not None
            try:
                await self._find_lost(loop.time(), everything=reconnecting)
                await self._read(None if reconnecting else self._block_ms)
            except BUS_ERRORS as error:
                await self._not_reachable(error)
                continue
            self._away_since = None
            now = loop.time()
            if now - self._swept_at >= self._waits.sweep_seconds:
                self._swept_at = now
                self._pending.fail_overdue(now)

    async def _read(self, block_ms: int | None) -> int:
        """Read answers that have come, or wait for some; returns the number of entries."""
        block = () if block_ms is None else ("BLOCK", block_ms)
        answer = await self._redis.execute("XREAD", "COUNT", READ_MAX, *block, "STREAMS", self._key, self._last)
        entries = entries_of(answer)
        for entry_id, fields in entries:
            self._last = entry_id
            for command_id, data in fields.items():
                self._pending.hand_over(command_id, data)
        return len(entries)

    async def _find_lost(self, now: float, *, everything: bool) -> None:
        """Find commands that were lost among those that have waited for a while, or among all of them."""
        if not everything and now - self._searched_at < self._waits.lost_seconds:
            return
        self._searched_at = now
        suspects = self._pending.sent_before(now if everything else now - self._waits.lost_seconds)
        if not suspects:
            return
        looks = [("XRANGE", self._commands_key, entry_id, entry_id, "COUNT", 1) for entry_id in suspects]
        *found, newest = await self._redis.pipeline([*looks, ("XREVRANGE", self._key, "+", "-", "COUNT", 1)])
        if not newest or entry_order(newest[0][0].decode()) < entry_order(self._last):
            # Another stream of answers than the one that was read, and its clock may be behind.
            self._last = "0-0"
        missing = [entry_id for entry_id, entry in zip(suspects, found, strict=True) if not entry]
        if not missing:
            return
        while await self._read(None):
            pass
        lost = [
            command
            for entry_id in missing
            for command in suspects[entry_id]
            if command.entry_id == entry_id and self._pending.expects(command.id)
        ]
        if lost:
            log.warning("commands were lost, asking again", count=len(lost))
            self._send_again(lost)

    async def _not_reachable(self, error: BaseException) -> None:
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
            log.warning("replies not reachable", error=str(error))
        if isinstance(error, TimeoutError) or now - self._away_since >= self._waits.away_seconds:
            self._pending.fail(BusUnavailableError(AWAY_TEXT))
        self._redis.drop()
        await asyncio.sleep(self._waits.retry_seconds)
        if says_other_type(error):
            with contextlib.suppress(*BUS_ERRORS):
                await remove_other_types(self._redis, {self._key: "stream"})
