"""Log lines for any number of viewers of one worker: one reader of the stream while somebody watches, a bounded queue each.

A viewer first gets the last lines, then everything from when it joined, in order, nothing twice. One that does not read
loses the oldest lines of its queue and is told how many; it holds up nobody. While Redis is away a viewer waits; what is
logged meanwhile is in its replay.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.stream_ids import BEGINNING, entry_order
from pgnode.os_support.aio import end_tasks, retry

log = structlog.get_logger(__name__)

#: Lines that wait for one viewer at most.
QUEUE_LINES = 5000

#: Seconds without a line after which a viewer gets a heartbeat.
HEARTBEAT_SECONDS = 10.0

#: Seconds that a viewer waits for its place in the stream before it is served. It gets the place later when Redis takes longer.
JOIN_SECONDS = 1.0

#: Seconds before a replay that could not be fetched is tried again.
RETRY_SECONDS = 0.5

#: Id of the entry of the stream, and the line without its end.
Line = tuple[str, bytes]


class Reader(Protocol):
    """Where lines come from: :class:`pgnode.bus.log_stream.LogReader`."""

    async def tail(self, lines: int) -> tuple[str, list[bytes]]:
        """Return the id of the last entry, and the last lines."""

    def follow(self, after: str) -> AsyncIterator[tuple[str, list[bytes]]]:
        """Yield what comes after an entry, without end."""

    async def close(self) -> None:
        """Disconnect."""


class _Viewer:
    """One viewer's queue. While it joins, lines are held until the replay is known."""

    def __init__(self, queue_lines: int, heartbeat_seconds: float) -> None:
        self._queue_lines = queue_lines
        self._heartbeat_seconds = heartbeat_seconds
        self._lines: deque[Line] = deque()
        self._dropped = 0
        self._wake = asyncio.Event()
        self._joined = False
        #: Last entry that it has: nothing up to it comes again, however far the reader of the stream lags behind, and also
        #: where a reader that was told to end does so later than the next one begins.
        self._has_to = entry_order(BEGINNING)

    def put(self, lines: list[Line]) -> None:
        """Queue lines; the oldest are dropped where there are too many."""
        self._lines.extend(lines)
        while len(self._lines) > self._queue_lines:
            self._lines.popleft()
            self._dropped += 1
        if self._joined:
            self._wake.set()

    def join(self, last: str, replay: list[bytes]) -> None:
        """Put the replay, which reaches up to the entry ``last``, before what came meanwhile and is not in it."""
        replayed_to = entry_order(last)
        held = [line for line in self._lines if entry_order(line[0]) > replayed_to]
        self._lines.clear()
        self._joined = True
        self._has_to = max(self._has_to, replayed_to)
        self.put([*((last, line) for line in replay), *held])

    def take(self, entry_id: str, lines: list[Line]) -> None:
        """Queue the lines of an entry, unless it has them."""
        order = entry_order(entry_id)
        if order > self._has_to:
            self._has_to = order
            self.put(lines)

    async def lines(self) -> AsyncIterator[Line | None]:
        """Yield what is queued, without end; None when nothing came for a while."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_seconds):
                    await self._wake.wait()
            except TimeoutError:
                yield None
                continue
            self._wake.clear()
            while self._lines:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    yield self._lines[0][0], f"[{dropped} lines dropped: this viewer reads too slowly]".encode()
                yield self._lines.popleft()


class LogHub:
    """One per worker process. Belongs to its event loop.

    Args:
        reader: Where lines come from; closed with the hub.
        replay_lines: Lines that a viewer gets first.
        queue_lines: Lines that wait for one viewer at most.
        heartbeat_seconds: Seconds without a line after which a viewer gets a heartbeat.
        join_seconds: Seconds that a viewer waits for its place in the stream before it is served.
        retry_seconds: Seconds before a replay that could not be fetched is tried again.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        replay_lines: int,
        queue_lines: int = QUEUE_LINES,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        join_seconds: float = JOIN_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._reader = reader
        self._replay_lines = replay_lines
        self._queue_lines = queue_lines
        self._heartbeat_seconds = heartbeat_seconds
        self._join_seconds = join_seconds
        self._retry_seconds = retry_seconds
        self._viewers: set[_Viewer] = set()
        self._follower: asyncio.Task[None] | None = None
        #: Replays are fetched one after the other: thousands may join at once, and connections are few.
        self._fetching = asyncio.Lock()

    def __repr__(self) -> str:
        return f"LogHub({len(self)} viewers)"

    def __len__(self) -> int:
        return len(self._viewers)

    async def close(self) -> None:
        """Stop reading, and disconnect."""
        if self._follower is not None:
            await end_tasks([self._follower])
        await self._reader.close()

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Line | None]]:
        """Join as a viewer.

        The viewer's place in the stream is known when the context is entered, so that it gets every line that is logged from
        then on. Only where Redis does not answer in time it is found later.

        Yields:
            Lines with their entries' ids, from the replay on; None when nothing came for a while.
        """
        viewer = _Viewer(self._queue_lines, self._heartbeat_seconds)
        # In this order: what comes while the replay is fetched is held, so nothing falls between the two.
        self._viewers.add(viewer)
        joining = asyncio.create_task(self._join(viewer))
        try:
            await asyncio.wait([joining], timeout=self._join_seconds)
            yield viewer.lines()
        finally:
            self._viewers.discard(viewer)
            await end_tasks([joining])
            if not self._viewers and self._follower is not None:
                follower, self._follower = self._follower, None
                await end_tasks([follower])

    async def _join(self, viewer: _Viewer) -> None:
        """Give a viewer its replay, as soon as Redis has it."""
        last, replay = await retry(
            self._tail,
            BUS_ERRORS,
            pause_seconds=self._retry_seconds,
            on_error=lambda error: log.warning("no replay of log lines yet: Redis does not answer", error=str(error)),
        )
        if self._follower is None or self._follower.done():
            self._follower = asyncio.create_task(self._follow(last))
        viewer.join(last, replay)

    async def _tail(self) -> tuple[str, list[bytes]]:
        async with self._fetching:
            return await self._reader.tail(self._replay_lines)

    async def _follow(self, after: str) -> None:
        async for entry_id, lines in self._reader.follow(after):
            batch = [(entry_id, line) for line in lines]
            for viewer in self._viewers:
                viewer.take(entry_id, batch)
