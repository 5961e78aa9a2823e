"""Passes the log on over the bus, for as long as somebody watches: in batches, without a look at single lines.

Lines that the bus does not take are kept up to a bound, then the oldest are dropped. Every line counts, also one that is
dropped, or that comes while nobody watches; so whoever reads knows how many are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from pgnode.bus.commands import Command
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import NODE_LOG_MAX, Keys
from pgnode.bus.log_batches import ENTRY_BYTES, LogBatch, Watch
from pgnode.bus.log_stream import put_batches, put_node_lines
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.errors import InvalidRequestError
from pgnode.os_support.line_blocks import pieces
from pgnode.supervisor.core.log_demand import LogDemand
from pgnode.supervisor.host.log_ring import LogRing

log = structlog.get_logger(__name__)

#: Lines and bytes that wait for the bus at most.
WAITING_MAX = 50_000
WAITING_BYTES = 16 * 1024 * 1024

#: Bytes sent in one round trip, about.
ROUND_BYTES = 1024 * 1024

#: Seconds between two round trips: lines of so long go together. Whoever joins waits for none.
SEND_SECONDS = 0.5

#: Seconds until lines that were not taken are sent again.
RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Counted:
    """How lines are numbered; a restart in place hands it on."""

    source: str
    number: int = 1

    @classmethod
    def left(cls, left: object) -> Counted:
        """Go on with what the supervisor before left, where that can be read, else begin anew."""
        match left:
            case {"source": str(source), "number": int(number)}:
                return cls(source, number)
        return cls(secrets.token_hex(4))


class LogSender:
    """Belongs to the supervisor's loop; :meth:`pass_on` is called by one task at a time.

    Args:
        redis: The way to the bus; closed with this.
        keys: The node's keys.
        ring: Has the last lines, for viewers who join.
        counted: How lines are numbered.
        now: Seconds on a clock that nobody sets.
        retry_seconds: Seconds until lines that were not taken are sent again.
        send_seconds: Seconds between two round trips.
    """

    def __init__(
        self,
        redis: PipelinedRedis,
        keys: Keys,
        ring: LogRing,
        counted: Counted,
        *,
        now: Callable[[], float] = time.monotonic,
        retry_seconds: float = RETRY_SECONDS,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._ring = ring
        self._now = now
        self._retry_seconds = retry_seconds
        self._send_seconds = send_seconds
        self._source, self._number = counted.source, counted.number
        self._demand = LogDemand(now())
        self._waiting: deque[LogBatch] = deque()
        self._lines = self._bytes = 0
        #: The node's own lines, for operators.
        self._own: deque[bytes] = deque(maxlen=NODE_LOG_MAX)
        #: What nobody watches any more is still in the stream.
        self._used = False
        self._wake = asyncio.Event()
        self._at_once = asyncio.Event()
        #: Lines that the bus did not take in time, since this object was made.
        self.dropped = 0

    def __repr__(self) -> str:
        return f"LogSender({self._lines} lines waiting, {self._demand!r})"

    @property
    def counted(self) -> Counted:
        """How the next lines are numbered."""
        return Counted(self._source, self._number)

    def put(self, data: bytes, count: int) -> None:
        """Pass lines on, where somebody watches.

        Args:
            data: The lines, with a line feed between two.
            count: How many they are.
        """
        batch = LogBatch(self._source, self._number, data)
        self._number += count
        now = self._now()
        if self._demand.watched(now):
            self._queue(batch)
            self._wake.set()
        elif self._demand.unknown(now):
            self._queue(batch)
        elif self._waiting or self._used:
            self._forget()

    def keep_own(self, line: bytes) -> None:
        """Keep a line of the node's own for operators, who may find a supervisor that does not answer.

        Args:
            line: The line.
        """
        self._own.append(line)
        self._wake.set()

    def watch(self, worker: str, watch: Watch) -> None:
        """Take what a worker says about its viewers.

        Args:
            worker: Its name.
            watch: What it says.
        """
        now = self._now()
        if not self._demand.said(worker, watch, now):
            return
        if watch.token:
            self._queue(LogBatch(self._source, self._number, b"\n".join(self._ring.last(watch.replay)), watch.token))
        if self._demand.watched(now):
            # What a supervisor has read that did not know yet who watches.
            if self._waiting:
                self._wake.set()
            if watch.token:
                self._at_once.set()
        else:
            self._forget()

    async def watch_asked(self, command: Command) -> bytes:
        """Do a command of a worker's about its viewers.

        Args:
            command: The command.

        Returns:
            Nothing.

        Raises:
            InvalidRequestError: It is something else.
        """
        try:
            watch = Watch.decode(command.body)
        except ValueError:
            raise InvalidRequestError("a worker of another version asks for the log: restart the node") from None
        self.watch(command.worker, watch)
        return b""

    async def run(self) -> None:
        """Pass lines on until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self.pass_on():
                self._wake.set()
                await asyncio.sleep(self._retry_seconds)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._send_seconds):
                    await self._at_once.wait()
            self._at_once.clear()

    async def pass_on(self) -> bool:
        """Pass on what waits.

        Returns:
            Whether the bus took all of it.
        """
        while self._own or self._ends or (self._waiting and self._watched):
            ends = self._ends
            own, taken = list(self._own), list(self._take()) if self._watched else []
            self._own.clear()
            self._used = self._used or bool(taken)
            commands = [*put_node_lines(self._keys, own), *put_batches(self._keys, _together(taken))]
            if ends:
                # The key goes by itself; with it its last id would go.
                commands.append(("XTRIM", self._keys.log, "MAXLEN", 0))
            try:
                await self._redis.pipeline(commands)
            except BUS_ERRORS as error:
                log.debug("the bus does not take lines of the log", error=str(error))
                self._demand.not_heard(self._now())
                self._own.extendleft(reversed(own))
                self._waiting.extendleft(reversed(taken))
                self._lines += sum(batch.count for batch in taken)
                self._bytes += sum(len(batch.block) for batch in taken)
                self._trim()
                return False
            if ends:
                self._used = False
        return True

    def close(self) -> None:
        """Disconnect."""
        self._redis.drop()

    @property
    def _watched(self) -> bool:
        return self._demand.watched(self._now())

    @property
    def _ends(self) -> bool:
        return self._used and not self._watched

    def _queue(self, batch: LogBatch) -> None:
        self._waiting.append(batch)
        self._lines += batch.count
        self._bytes += len(batch.block)
        self._trim()

    def _trim(self) -> None:
        while self._lines > WAITING_MAX or self._bytes > WAITING_BYTES:
            gone = self._waiting.popleft()
            self._lines -= gone.count
            self._bytes -= len(gone.block)
            if not gone.token and self._watched:
                self.dropped += gone.count

    def _forget(self) -> None:
        """Nobody watches any more: what waits is for nobody that is known, and what is in the stream goes."""
        if not self._demand.unknown(self._now()):
            self._waiting.clear()
            self._lines = self._bytes = 0
        self._at_once.set()
        self._wake.set()

    def _take(self) -> Iterator[LogBatch]:
        size = 0
        while self._waiting and size < ROUND_BYTES:
            batch = self._waiting.popleft()
            self._lines -= batch.count
            self._bytes -= len(batch.block)
            size += len(batch.block)
            yield batch


def _together(batches: list[LogBatch]) -> Iterator[LogBatch]:
    """Yield the same lines in few entries, none of which is large."""
    held: list[LogBatch] = []
    size = 0
    for batch in batches:
        for part in _parts(batch):
            if held and (
                part.token or held[-1].token or size + len(part.block) > ENTRY_BYTES or _is_gap(held[-1], part)
            ):
                yield _joined(held)
                held, size = [], 0
            held.append(part)
            size += len(part.block) + 1
    if held:
        yield _joined(held)


def _is_gap(before: LogBatch, batch: LogBatch) -> bool:
    return before.number + before.count != batch.number


def _parts(batch: LogBatch) -> Iterator[LogBatch]:
    if batch.token or len(batch.block) <= ENTRY_BYTES:
        yield batch
        return
    number = batch.number
    for piece in pieces(batch.block, ENTRY_BYTES):
        part = LogBatch(batch.source, number, piece)
        number += part.count
        yield part


def _joined(batches: list[LogBatch]) -> LogBatch:
    first = batches[0]
    if len(batches) == 1:
        return first
    return LogBatch(first.source, first.number, b"\n".join([batch.block for batch in batches]))
