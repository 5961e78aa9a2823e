"""The file ``state.db``: opened with checks, read whole at the start, written in transactions. Synchronous.

The supervisor has the only connection that writes (:mod:`pgnode.store.writer`); the operator's commands read beside it
(:mod:`pgnode.store.reader`). SQLite in WAL mode: a commit appends to ``state.db-wal``, and what a killed process had committed
is there. What the machine had not put on its disk when the power failed is cut off at the end, whole commits at a time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from pgnode.errors import StoreUnusableError
from pgnode.os_support.fault_points import fault_point
from pgnode.store import log_folding
from pgnode.store.changes import StoreChanges
from pgnode.store.counter_log import unpack
from pgnode.store.lent_bytes import count_lent
from pgnode.store.rows import LedgerRow, LedgerRun, LoanPart, RejectedUser
from pgnode.store.schema import APPLICATION_ID, MIGRATIONS, VERSION, Migrations
from pgnode.store.sqlite_errors import WHEN_RUNNING, advice_for, cause_of, damaged, told_to_operator
from pgnode.store.state import StoredState
from pgnode.store.statements import Statement, Transaction, transaction_of
from pgnode.store.user_rows import read_departed, read_users

#: Seconds for which a lock of another process is waited for.
BUSY_SECONDS = 2.0

#: The log of counters goes into their table when it has so many bytes, or rows.
FOLD_BYTES = 4 * 1024 * 1024
FOLD_ROWS = 4096

#: Bytes of a page of a new file. The users of one commit mostly fit on one: of 4,096 bytes a commit wrote five to seven, each
#: with two calls of the system. A file keeps the size that it was made with.
PAGE_BYTES = 16 * 1024

#: Bytes of the WAL with which it goes into the file, about.
WAL_BYTES = 4 * 1024 * 1024

#: Bytes of pages kept in memory, at most. With less, a large transaction writes pages twice and more.
CACHE_BYTES = 48 * 1024 * 1024

#: A change counts as one that has room when the disk has so many times its size, and so many bytes.
ROOM_RATIO = 2
ROOM_BYTES = 256 * 1024

#: Bytes that a row of the log takes beside its data.
_ROW_BYTES = 16


class StoreWriteError(Exception):
    """Changes could not be written; the store is as it was before. ``str(error)`` is the cause, for callers and the log."""


class Database:
    """One connection to the file, made by :meth:`open`. Methods may be called by any thread, but only by one at a time.

    Args:
        connection: To a file that was checked.
        path: The file.
        fold_rows: Rows of the log of counters with which it goes into their table.
        fold_step_rows: Rows of the table that are written at a time then.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        fold_rows: int = FOLD_ROWS,
        fold_step_rows: int = log_folding.STEP_ROWS,
    ) -> None:
        self._db = connection
        self.path = path
        self._fold_rows = fold_rows
        self._fold_step_rows = fold_step_rows
        self._wal = -1
        #: Of the log of counters, as far as is known.
        self._log_bytes = 0
        self._log_rows = 0

    def __repr__(self) -> str:
        """Name the file."""
        return f"Database({self.path})"

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        sync_always: bool = False,
        busy_seconds: float = BUSY_SECONDS,
        fold_rows: int = FOLD_ROWS,
        fold_step_rows: int = log_folding.STEP_ROWS,
        migrations: Migrations = MIGRATIONS,
    ) -> Database:
        """Open the file for writing, make it if it is missing, and bring it to this version's schema.

        Args:
            path: The file; its folder exists.
            sync_always: Every commit waits until it is on the disk, whatever :meth:`sync` does.
            busy_seconds: Seconds for which a lock of another process is waited for.
            fold_rows: Rows of the log of counters with which it goes into their table.
            fold_step_rows: Rows of the table that are written at a time then.
            migrations: The steps to this version's schema.

        Returns:
            The open file.

        Raises:
            StoreUnusableError: A sentence for the operator: what is wrong with the file, and what to do.
        """
        with told_to_operator(path):
            if path.exists() and not path.is_file():
                what = "a folder" if path.is_dir() else "no regular file"
                raise StoreUnusableError(f"{path} is {what}: move it away, or choose another STATE_DIR")
            if not path.exists():
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = connect(path, busy_seconds=busy_seconds)
            try:
                check(connection, path, len(migrations))
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                [page_bytes] = connection.execute("PRAGMA page_size").fetchone()
                connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_BYTES // page_bytes}").fetchall()
                connection.execute(f"PRAGMA synchronous = {'FULL' if sync_always else 'NORMAL'}")
                connection.execute(f"PRAGMA cache_size = -{CACHE_BYTES // 1024}")
                # Fails now rather than at the first commit.
                connection.execute("BEGIN IMMEDIATE")
                _migrate(connection, migrations)
                connection.execute("COMMIT")
                database = cls(connection, path, fold_rows=fold_rows, fold_step_rows=fold_step_rows)
                database._look_at_log()
            except BaseException:
                connection.close()
                raise
        return database

    def load(self) -> StoredState:
        """Read everything.

        Returns:
            Everything that the file holds.

        Raises:
            StoreUnusableError: The file is damaged.
        """
        with told_to_operator(self.path):
            return load(self._db)

    def write(self, changes: StoreChanges) -> None:
        """Write changes in one transaction: all of them, or none.

        Args:
            changes: What is to be written.

        Raises:
            StoreWriteError: None was written.
        """
        self.commit(transaction_of(changes))

    def commit(self, transaction: Transaction) -> None:
        """Write what a transaction holds: all of it, or nothing.

        Args:
            transaction: What is to be written.

        Raises:
            StoreWriteError: Nothing was written.
        """
        try:
            fault_point("store.write")
            self._execute(transaction.statements)
        except (sqlite3.Error, OSError) as error:
            raise StoreWriteError(f"{cause_of(error)}; {advice_for(error)}") from error
        if transaction.large:
            self._shrink()
        for size in transaction.log_bytes:
            self._log_bytes += size + _ROW_BYTES
            self._log_rows += 1

    def _execute(self, statements: Iterable[Statement]) -> None:
        """Do all of them or none. Raises sqlite3.Error."""
        db, left = self._db, iter(statements)
        first = list(islice(left, 2))
        if len(first) < 2:
            # One is a transaction by itself.
            for one in first:
                db.execute(*one)
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in chain(first, left):
                db.execute(statement, values)
            db.execute("COMMIT")
        except BaseException:
            # After some errors SQLite has done so itself.
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def require_room(self, needed_bytes: int) -> None:
        """Find out whether the file could be written now; a small thing is written to it.

        Args:
            needed_bytes: About what is going to be written.

        Raises:
            StoreWriteError: It could not; nothing was changed.
        """
        with contextlib.suppress(OSError):
            disk = os.statvfs(self.path)
            free = disk.f_frsize * (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail)
            needed = ROOM_RATIO * needed_bytes + ROOM_BYTES
            if disk.f_blocks and free < needed:
                raise StoreWriteError(
                    f"no room on the disk ({free:,} bytes free, {needed:,} needed); {WHEN_RUNNING[0]}"
                )
        self.write(StoreChanges(meta={"room": 1}))

    def _shrink(self) -> None:
        """Give memory for pages back; what was committed before is not undone by an error in that."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA shrink_memory").fetchall()

    # --- the log of counters ------------------------------------------------------------------------------------

    def _look_at_log(self) -> None:
        size, self._log_rows = self._db.execute(
            "SELECT coalesce(sum(length(packed)), 0), count(*) FROM counter_log"
        ).fetchone()
        self._log_bytes = size + self._log_rows * _ROW_BYTES

    def fold_due(self) -> bool:
        """Return whether the log of counters is long enough to be folded."""
        return self._log_bytes >= FOLD_BYTES or self._log_rows >= self._fold_rows

    def fold(self) -> None:
        """Put what the log of counters says into their table.

        Raises:
            StoreWriteError: It is still in the log, all of it.
        """
        for _ in self.fold_steps():
            pass

    def fold_steps(self) -> Iterator[None]:
        """Do the same in steps, between which other things may be committed (:mod:`pgnode.store.log_folding`).

        Yields:
            After each step.

        Raises:
            StoreWriteError: It is still in the log, all of it.
        """
        try:
            yield from log_folding.fold_steps(self._db, self._execute, self._fold_step_rows)
            self._look_at_log()
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StoreWriteError(f"{cause_of(error)}; {advice_for(error)}") from error
        self._shrink()

    # --- the disk -----------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Put what was committed on the disk; may be called while another thread writes.

        Raises:
            OSError: The disk did not take it.
        """
        wal = self.path.with_name(self.path.name + "-wal")
        if self._wal < 0:
            with contextlib.suppress(FileNotFoundError):
                self._wal = os.open(wal, os.O_RDONLY)
        if self._wal >= 0:
            os.fdatasync(self._wal)

    def close(self) -> None:
        """Close the file; what was committed is on the disk then, and the WAL is gone."""
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def connect(path: Path, *, read_only: bool = False, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Return a connection that begins no transactions by itself. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    return sqlite3.connect(uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def check(connection: sqlite3.Connection, path: Path, version: int = VERSION) -> None:
    """Check that this is an undamaged file of a node, and not of a newer one.

    Args:
        connection: To the file.
        path: Its name, for the error.
        version: The schema that this node knows.

    Raises:
        StoreUnusableError: It is not.
        sqlite3.Error: It cannot be read.
    """
    check_version(connection, path, version)
    [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise damaged(found)


def check_version(connection: sqlite3.Connection, path: Path, known: int = VERSION) -> int:
    """Read the schema's version.

    Args:
        connection: To the file.
        path: Its name, for the error.
        known: The schema that this node knows.

    Returns:
        The version, 0 for an empty file.

    Raises:
        StoreUnusableError: It is another program's file, or a newer node's.
        sqlite3.Error: It cannot be read.
    """
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [objects] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or objects):
        raise StoreUnusableError(f"{path} is not a file of this node's: move it away, or choose another STATE_DIR")
    if version > known:
        raise StoreUnusableError(
            f"{path} was written by a newer pgnode (schema {version}, this one knows {known}): "
            "run that version, or choose another STATE_DIR"
        )
    return int(version)


def load(connection: sqlite3.Connection) -> StoredState:
    """Read everything, as of one moment.

    Args:
        connection: To the file.

    Returns:
        Everything that the file holds.

    Raises:
        sqlite3.Error: The file cannot be read.
        ValueError: A row is damaged.
    """
    select = connection.execute
    select("BEGIN")
    try:
        meta = dict(select("SELECT key, value FROM meta"))
        counters = {
            name: LedgerRow(*row) for name, *row in select("SELECT name, total, reported, seen, run FROM counters")
        }
        for name, row in _read_log(connection).items():
            if row is not None:
                counters[name] = row
            else:
                counters.pop(name, None)
        run = LedgerRun.decode(meta["run"]) if "run" in meta else None
        loans = {
            name: LoanPart(loan, kind, worker, body)
            for name, loan, kind, worker, body in select("SELECT part, loan, kind, worker, body FROM loans")
        }
        count_lent(counters, run, loans.values())
        users, changed = read_users(connection)
        return StoredState(
            origin=str(meta.get("origin") or ""),
            backend=meta.get("backend"),
            known="active" in meta,
            active=bool(meta.get("active")),
            restoring=int(meta.get("restoring") or 0),
            restore_errors=int(meta.get("restore_errors") or 0),
            foreign_books=bool(meta.get("write_off")),
            core_run=int(meta.get("core_run") or 0),
            drain=str(meta.get("drain") or ""),
            inbounds_asked=bool(meta.get("inbounds_asked")),
            users=users,
            changed_users=changed,
            rejected={
                key: RejectedUser(email, cause, at_ms, message, bool(by_core))
                for key, email, cause, at_ms, message, by_core in select(
                    "SELECT key, email, cause, at_ms, message, by_core FROM rejected"
                )
            },
            superseded=dict(select("SELECT key, command FROM superseded")),
            departed=read_departed(connection),
            taken=dict(select("SELECT command, kind FROM taken ORDER BY id")),
            routing=dict(select("SELECT key, value FROM routing")),
            run=run,
            counters=counters,
            loans=loans,
            settled={
                loan: bool(delivered) for loan, delivered in select("SELECT loan, delivered FROM settled ORDER BY id")
            },
        )
    finally:
        select("ROLLBACK")


def _read_log(connection: sqlite3.Connection) -> dict[str, LedgerRow | None]:
    return unpack(packed for (packed,) in connection.execute("SELECT packed FROM counter_log ORDER BY id"))


def _migrate(connection: sqlite3.Connection, migrations: Migrations) -> None:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    for statements in migrations[version:]:
        for statement in statements:
            connection.execute(statement)
    if version != len(migrations):
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
