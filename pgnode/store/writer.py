"""Writes changes to the store without holding up the event loop: one thread that commits, one that puts it on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import structlog

from pgnode.store.changes import StoreChanges
from pgnode.store.database import FOLD_ROWS, Database, StoreWriteError
from pgnode.store.state import StoredState
from pgnode.store.statements import small_transaction_of, transaction_of

log = structlog.get_logger(__name__)

#: What was committed is put on the disk after this time: what a power failure may cost.
SYNC_SECONDS = 1.0

_T = TypeVar("_T")


class StoreWriter:
    """The one owner of the store. Belongs to the event loop that called :meth:`open`.

    Commits are done in the order in which they were asked for. The disk is waited for by another thread: on a slow one that takes
    a tenth of a second and more, in which commits go on.

    Args:
        path: The file.
        sync_always: A commit ends when it is on the disk.
        sync_seconds: What was committed is put on the disk after this time, else.
        fold_rows: Rows of the log of counters with which it goes into their table.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync_always: bool = False,
        sync_seconds: float = SYNC_SECONDS,
        fold_rows: int = FOLD_ROWS,
    ) -> None:
        self._path = path
        self._sync_seconds = sync_seconds
        self._fold_rows = fold_rows
        self._sync_always = sync_always
        self._database: Database | None = None
        self._commits = _Thread("store")
        self._syncs = _Thread("store disk")
        self._syncing: asyncio.Task[None] | None = None
        #: The steps of folding the log of counters that are left; None while that is not done.
        self._folding: Iterator[None] | None = None
        self._closing = False
        #: Why the disk did not take something the last time; "" when it did.
        self._sync_error = ""

    def __repr__(self) -> str:
        """Name the file."""
        return f"StoreWriter({self._path})"

    async def open(self) -> StoredState:
        """Open the file and read everything in it.

        Returns:
            Everything that the file holds.

        Raises:
            StoreUnusableError: The file cannot be used.
        """

        def opened() -> tuple[Database, StoredState]:
            database = Database.open(self._path, sync_always=self._sync_always, fold_rows=self._fold_rows)
            try:
                return database, database.load()
            except BaseException:
                database.close()
                raise

        self._commits.start()
        self._syncs.start()
        self._database, state = await self._commits.run(opened)
        return state

    async def load(self) -> StoredState:
        """Read everything in the file.

        Returns:
            What it holds.

        Raises:
            StoreUnusableError: The file is damaged.
        """
        return await self._commits.run(self._opened.load)

    async def commit(self, changes: StoreChanges) -> None:
        """Write changes in one transaction.

        Args:
            changes: What is to be written; it is not looked at after this returned.

        Raises:
            StoreWriteError: None of them was written.
        """
        database = self._opened
        try:
            small = small_transaction_of(changes)
            await self._commits.run(lambda: database.commit(small if small is not None else transaction_of(changes)))
        except MemoryError:
            # SQLite's, too: Python has no error of SQLite's for that.
            raise StoreWriteError("there is no memory for it; free some, the node then goes on by itself") from None
        if self._folding is None and database.fold_due():
            self._folding = database.fold_steps()
            self._commits.begin(self._fold_on)
        if not self._sync_always and (self._syncing is None or self._syncing.done()):
            self._syncing = asyncio.create_task(self._sync_soon())

    async def require_room(self, needed_bytes: int) -> None:
        """Find out whether changes could be written now.

        Args:
            needed_bytes: About how many bytes.

        Raises:
            StoreWriteError: They could not.
        """
        database = self._opened
        await self._commits.run(lambda: database.require_room(needed_bytes))

    async def _sync_soon(self) -> None:
        await asyncio.sleep(self._sync_seconds)
        await self._sync()

    async def _sync(self) -> None:
        try:
            await self._syncs.run(self._opened.sync)
        except OSError as error:
            if not self._sync_error:
                log.error("the disk did not take the store's changes", path=str(self._path), error=str(error))
            self._sync_error = str(error)
        else:
            self._sync_error = ""

    def _fold_on(self) -> None:
        """Fold the log of counters by one step, in the thread, and queue the next step behind the commits that wait."""
        if self._folding is None or self._closing:
            # The next supervisor finds the log as it is.
            return
        try:
            next(self._folding)
        except StopIteration:
            self._folding = None
        except (StoreWriteError, MemoryError) as error:
            # While it cannot be done, the log grows, and everything is in it.
            self._folding = None
            log.warning("the log of counters was not folded", error=str(error) or "no memory")
        else:
            self._commits.begin(self._fold_on)

    async def close(self) -> None:
        """Put everything on the disk and close the file."""
        self._closing = True
        if self._syncing is not None:
            self._syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._syncing
        if self._database is not None:
            await self._sync()
            await self._commits.run(self._database.close)
            self._database = None
        self._commits.stop()
        self._syncs.stop()

    @property
    def _opened(self) -> Database:
        assert self._database is not None, "the store is not open"
        return self._database


class _Thread:
    """Does one thing after the other. An executor of the standard library costs twice as much a call."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Not waited for at the end of the process: a disk that hangs must not keep it.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._jobs.put(None)

    def begin(self, work: Callable[[], None]) -> None:
        """Do it after everything that waits; ``work`` raises nothing."""
        self._jobs.put(work)

    def run(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Return what ``work`` returns or raises; it is done also where nobody waits for that any more."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def job() -> None:
            try:
                result = work()
            except Exception as error:
                loop.call_soon_threadsafe(_fail, future, error)
            else:
                loop.call_soon_threadsafe(_finish, future, result)

        self._jobs.put(job)
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            # What ended meanwhile: the event loop that waited.
            with contextlib.suppress(RuntimeError):
                job()


def _finish(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
