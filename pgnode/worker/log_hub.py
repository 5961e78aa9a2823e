"""Log lines for any number of viewers of one worker: one reader of the stream while somebody watches, a bounded queue each.

While there are viewers the worker says so again and again: without that the supervisor puts no line on the bus. A viewer first
gets the last lines, then everything from when it joined, in order, nothing twice. One that does not read loses the oldest lines
of its queue and is told how many; it holds up nobody. Lines that are lost on the way here are told, too. While Redis or the
supervisor is away a viewer waits; what is logged meanwhile it gets later.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import structlog

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.log_batches import RENEW_SECONDS, LogBatch, Watch
from pgnode.errors import NodeError
from pgnode.os_support.aio import end_tasks
from pgnode.worker.log_order import LogOrder
from pgnode.worker.log_queue import Lines, LogQueue, pieces_of

log = structlog.get_logger(__name__)

#: Seconds without a line after which a viewer gets a heartbeat.
HEARTBEAT_SECONDS = 10.0

#: Seconds that a viewer waits for its place in the stream before it is served. It gets the place later when that takes longer.
JOIN_SECONDS = 1.0

#: Seconds after which a viewer that has no place yet is announced once more.
JOIN_AGAIN_SECONDS = 2.0

#: Seconds before the supervisor is told again that did not answer.
RETRY_SECONDS = 0.5


class Reader(Protocol):
    """Where lines come from: :class:`pgnode.bus.log_stream.LogReader`."""

    async def newest(self) -> str:
        """Return the id of the last entry. Raises BUS_ERRORS."""

    def follow(self, after: str) -> AsyncIterator[tuple[str, LogBatch]]:
        """Yield what comes after an entry, without end."""

    def close(self) -> None:
        """Disconnect."""


class _Viewer:
    """One viewer: its queue, and where it joins."""

    def __init__(self, queue: LogQueue) -> None:
        self.queue = queue
        #: Under which the supervisor puts its place into the stream; "" before it was asked.
        self.token = ""
        #: When that was asked.
        self.asked_at = float("-inf")
        self.joined = asyncio.Event()


class LogHub:
    """One per worker process. Belongs to its event loop.

    Args:
        reader: Where lines come from; closed with the hub.
        tell: Tells the supervisor whether there are viewers; raises NodeError.
        replay_lines: Lines that a viewer gets first.
        queue: Makes a viewer's queue.
        heartbeat_seconds: Seconds without a line after which a viewer gets a heartbeat.
        join_seconds: Seconds that a viewer waits for its place in the stream before it is served.
        join_again_seconds: Seconds after which a viewer that has no place yet is announced once more.
        retry_seconds: Seconds before the supervisor is told again that did not answer.
        renew_seconds: Seconds between two times at which the supervisor is told.
    """

    def __init__(
        self,
        reader: Reader,
        tell: Callable[[Watch], Awaitable[object]],
        *,
        replay_lines: int,
        queue: Callable[[], LogQueue] = LogQueue,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        join_seconds: float = JOIN_SECONDS,
        join_again_seconds: float = JOIN_AGAIN_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        self._reader = reader
        self._tell = tell
        self._replay_lines = replay_lines
        self._queue = queue
        self._heartbeat_seconds = heartbeat_seconds
        self._join_seconds = join_seconds
        self._join_again_seconds = join_again_seconds
        self._retry_seconds = retry_seconds
        self._renew_seconds = renew_seconds
        self._viewers: set[_Viewer] = set()
        self._wake = asyncio.Event()
        #: Says that there are viewers, and follows the stream, for as long as there are some.
        self._working: asyncio.Task[None] | None = None
        #: Tells the supervisor that there are none any more.
        self._leaving: set[asyncio.Task[None]] = set()
        #: Of what was told.
        self._number = 0

    def __repr__(self) -> str:
        return f"LogHub({len(self)} viewers)"

    def __len__(self) -> int:
        return len(self._viewers)

    async def close(self) -> None:
        """Stop reading, and disconnect."""
        working, self._working = self._working, None
        await end_tasks([*([working] if working is not None else []), *self._leaving])
        self._reader.close()

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Lines | None]]:
        """Join as a viewer.

        The viewer's place in the stream is known when the context is entered, so that it gets every line that is logged from
        then on. Only where the supervisor does not answer in time it is found later.

        Yields:
            Lines with their entry's id, from the replay on; None when nothing came for a while.
        """
        viewer = _Viewer(self._queue())
        self._viewers.add(viewer)
        self._wake.set()
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._join_seconds):
                    await viewer.joined.wait()
            yield viewer.queue.lines(self._heartbeat_seconds)
        finally:
            self._viewers.discard(viewer)
            if not self._viewers and self._working is not None:
                working, self._working = self._working, None
                leaving = asyncio.create_task(self._leave(working))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, working: asyncio.Task[None]) -> None:
        self._number += 1
        watch = Watch(self._number, on=False)
        await end_tasks([working])
        with contextlib.suppress(NodeError):
            await self._tell(watch)

    async def _work(self) -> None:
        """Follow the stream, and say that there are viewers."""
        # Before it is said: what comes into the stream from then on is seen.
        while True:
            try:
                after = await self._reader.newest()
                break
            except BUS_ERRORS as error:
                log.warning("no log lines yet: Redis does not answer", error=str(error))
                await asyncio.sleep(self._retry_seconds)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(after))
            tasks.create_task(self._announce())

    async def _announce(self) -> None:
        silent = False
        while True:
            self._wake.clear()
            new = self._without_place()
            token = secrets.token_hex(8) if new else ""
            for viewer in new:
                viewer.token, viewer.asked_at = token, asyncio.get_running_loop().time()
            self._number += 1
            try:
                await self._tell(Watch(self._number, True, token, self._replay_lines if new else 0))
                silent = False
            except NodeError as error:
                for viewer in new:
                    viewer.token, viewer.asked_at = "", float("-inf")
                if not silent:
                    log.warning("no log lines for now: the supervisor does not answer", error=str(error))
                silent = True
                await asyncio.sleep(self._retry_seconds)
                continue
            waits = any(not viewer.joined.is_set() for viewer in self._viewers)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._join_again_seconds if waits else self._renew_seconds):
                    await self._wake.wait()

    def _without_place(self) -> list[_Viewer]:
        """Return the viewers who are to be announced now."""
        before = asyncio.get_running_loop().time() - self._join_again_seconds
        return [viewer for viewer in self._viewers if not viewer.joined.is_set() and viewer.asked_at <= before]

    async def _follow(self, after: str) -> None:
        order = LogOrder()
        async for entry_id, batch in self._reader.follow(after):
            for data in order.take(batch):
                found = pieces_of(data)
                for viewer in self._viewers:
                    if viewer.joined.is_set():
                        viewer.queue.put(entry_id, found)
            if batch.token:
                for viewer in self._viewers:
                    if viewer.token == batch.token and not viewer.joined.is_set():
                        viewer.queue.put(entry_id, pieces_of(batch.block))
                        viewer.joined.set()
