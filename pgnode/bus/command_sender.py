"""Puts a worker's commands into the stream, in groups: commands that come during one round trip go with the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from pgnode.bus.commands import GATHERED_KINDS, WORKER_FIELD, Kind, encode_command
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.gathering import Gathering
from pgnode.bus.keys import BLOB_BYTES, BLOB_TTL_SECONDS, Keys
from pgnode.bus.pending import PendingCommand, PendingCommands
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.redis_compat import Args
from pgnode.bus.waits import CLIENT_WAITS, ClientWaits
from pgnode.errors import BusUnavailableError

log = structlog.get_logger(__name__)

#: Commands sent in one round trip at most.
GROUP_MAX = 512

#: Bytes of commands in one entry, about.
ENTRY_BYTES = 1024 * 1024

AWAY_TEXT = "the node's Redis cannot be reached, try again"


class CommandSender:
    """Sends what is pending. Belongs to one event loop.

    Args:
        redis: The connection to send on.
        keys: The node's keys.
        worker: Name of this worker.
        pending: What to send, and who waits for it.
        waits: How long to wait for what.
    """

    def __init__(
        self,
        redis: PipelinedRedis,
        keys: Keys,
        worker: str,
        pending: PendingCommands,
        *,
        waits: ClientWaits = CLIENT_WAITS,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._worker = worker.encode()
        self._pending = pending
        self._waits = waits
        self._gathering = Gathering()
        self._patience: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        #: Loop time since which nothing could be sent.
        self._away_since: float | None = None
        #: Loop time at which a group was sent last.
        self._sent_at = float("-inf")

    def __repr__(self) -> str:
        return f"CommandSender({self._gathering!r})"

    def add(self, command: PendingCommand) -> None:
        """Send a command as soon as it may be."""
        waiting = self._pending.add(command)
        if self._gathering.queued(command.kind, waiting):
            self._wake.set()

    def send_again(self, commands: Sequence[PendingCommand]) -> None:
        """Send commands once more that were lost."""
        self._pending.put_back(commands)
        for command in commands:
            if command.under_way:
                command.under_way = False
                self._gathering.unsent()
            self._gathering.queued(command.kind, self._pending.waiting)
        self._wake_up()

    def ended(self, command: PendingCommand) -> None:
        """Forget a command: it was answered, or its caller has gone."""
        waiting = self._pending.remove(command.id)
        if command.under_way:
            loop = asyncio.get_running_loop()
            patience_seconds = self._gathering.ended(waiting, loop.time() - self._sent_at)
            if patience_seconds:
                self._patience = loop.call_later(patience_seconds, self._patience_over)
            if not self._gathering.under_way:
                self._wake_up()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending.waiting and self._gathering.may_send(self._pending.waiting):
                self._gathering.begin_group()
                if self._patience is not None:
                    self._patience.cancel()
                    self._patience = None
                await self._send_next()

    async def _send_next(self) -> None:
        # In a frame of its own: what it sent would be held until the next command comes, which may be 20 MB and hours.
        group = self._pending.take(GROUP_MAX)
        if group:
            await self._send(group)

    def _wake_up(self) -> None:
        if self._gathering.may_send(self._pending.waiting):
            self._wake.set()

    def _patience_over(self) -> None:
        self._patience = None
        self._gathering.patience_over()
        self._wake_up()

    async def _send(self, group: list[PendingCommand]) -> None:
        loop = asyncio.get_running_loop()
        now = self._sent_at = loop.time()
        blobs, entries, holders = self._encode(group, now)
        try:
            replies = await self._redis.pipeline([*blobs, *entries])
        except BUS_ERRORS as error:
            await self._not_sent(group, error)
            return
        self._away_since = None
        for entry_id, commands in zip(replies[len(blobs) :], holders, strict=True):
            for command in commands:
                command.entry_id, command.sent_at = entry_id.decode(), now

    def _encode(
        self, group: list[PendingCommand], now: float
    ) -> tuple[list[Args], list[Args], list[list[PendingCommand]]]:
        """Make the Redis commands: those for bodies of their own, one for each entry, and what each entry holds."""
        blobs: list[Args] = []
        entries: list[list[bytes]] = []
        holders: list[list[PendingCommand]] = []
        size, gathering, singles = 0, False, 0
        for command in group:
            blob = len(command.body) > BLOB_BYTES
            if blob:
                blobs.append(("SET", self._keys.blob(command.id.decode()), command.body, "EX", BLOB_TTL_SECONDS))
            # Counted from the entry's id on: what was spent on waiting here is gone.
            left_seconds = command.answer_by - now
            data = encode_command(command.kind, left_seconds if left_seconds > 0 else 0.0, command.body, blob=blob)
            if command.kind is Kind.SYNC_USER and not command.under_way:
                command.under_way = True
                singles += 1
            gathered = command.kind in GATHERED_KINDS
            if not (gathered and gathering and size < ENTRY_BYTES):
                entries.append([WORKER_FIELD, self._worker])
                holders.append([])
                size = 0
            entries[-1] += (command.id, data)
            holders[-1].append(command)
            size += len(data)
            gathering = gathered
        self._gathering.sent(singles)
        return blobs, [("XADD", self._keys.commands, "*", *fields) for fields in entries], holders

    async def _not_sent(self, group: list[PendingCommand], error: BaseException) -> None:
        """Try again for a while: a Redis that is started anew is back in a moment. Twice in the stream does no harm."""
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
            log.warning("commands not sent", count=len(group), error=str(error))
        if isinstance(error, TimeoutError) or now - self._away_since >= self._waits.away_seconds:
            self._pending.fail(BusUnavailableError(AWAY_TEXT), group)
            return
        await asyncio.sleep(self._waits.retry_seconds)
        self.send_again([command for command in group if self._pending.expects(command.id)])
