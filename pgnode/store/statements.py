"""From changes to the statements that write them. Pure.

Many rows go into one statement. The thread that writes the store gives the interpreter up for every step of a statement, and
has to win it back from a busy event loop: with one row in each, a commit of fifteen was seen to take half a second.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

from pgnode.store.changes import StoreChanges
from pgnode.store.counter_log import pack_all
from pgnode.store.rows import DepartedUser, LedgerRow
from pgnode.store.user_set import pack

#: A statement, and the values of its parameters.
Statement = tuple[str, Sequence[Any]]

#: Rows in one statement at most: each number of rows is a statement of its own, which SQLite compiles once and keeps.
STATEMENT_ROWS = 64

#: After a transaction of so many rows the memory for pages is given back.
LARGE_ROWS = 5_000

#: Changes of so many rows are packed by the event loop: handing them to a thread costs more.
SMALL_ROWS = 256

#: So many rows are written in the order of their table: each page is visited once then.
SORTED_ROWS = 500


@dataclass(frozen=True)
class _Table:
    name: str
    columns: Sequence[str]

    def statements(self, rows: Mapping[str, Any]) -> Iterator[Statement]:
        """Return what puts rows by their key; each is the value of the one other column, or a tuple of all. None removes it."""
        if len(rows) >= SORTED_ROWS:
            rows = dict(sorted(rows.items()))
        gone = iter([key for key, row in rows.items() if row is None])
        while keys := list(islice(gone, STATEMENT_ROWS)):
            yield _remove(self, len(keys)), keys
        left = iter([item for item in rows.items() if item[1] is not None])
        while items := list(islice(left, STATEMENT_ROWS)):
            values: list[Any] = []
            for key, row in items:
                values.append(key)
                if isinstance(row, tuple):
                    values += row
                else:
                    values.append(row)
            yield _put(self, len(items)), values


@functools.cache
def _put(table: _Table, rows: int) -> str:
    key, *others = table.columns
    row = f"({', '.join('?' * len(table.columns))})"
    return (
        f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES {', '.join([row] * rows)} "  # noqa: S608 - names of ours
        f"ON CONFLICT ({key}) DO UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in others)}"
    )


@functools.cache
def _remove(table: _Table, rows: int) -> str:
    return f"DELETE FROM {table.name} WHERE {table.columns[0]} IN ({', '.join('?' * rows)})"  # noqa: S608


_META: Final = _Table("meta", ("key", "value"))
_REJECTED: Final = _Table("rejected", ("key", "email", "cause", "at_ms", "message", "by_core"))
_SUPERSEDED: Final = _Table("superseded", ("key", "command"))
_TAKEN: Final = _Table("taken", ("command", "kind"))
_ROUTING: Final = _Table("routing", ("key", "value"))
_COUNTERS: Final = _Table("counters", ("name", "total", "reported", "seen", "run"))
_LOANS: Final = _Table("loans", ("part", "loan", "kind", "worker", "body"))
_SETTLED: Final = _Table("settled", ("loan", "delivered"))


def statements_of(changes: StoreChanges) -> Iterator[Statement]:
    """Return what writes changes, but for counters: these go to their log.

    Args:
        changes: What is to be written.

    Yields:
        Statements, to be executed in one transaction.
    """
    if changes.meta or changes.run is not None:
        meta: dict[str, Any] = dict(changes.meta)
        if changes.run is not None:
            meta["run"] = changes.run.encode()
        yield from _META.statements(meta)
    if changes.user_set is not None:
        yield "DELETE FROM users", ()
        yield "DELETE FROM user_log", ()
        yield "DELETE FROM user_set", ()
        for packed in pack(changes.user_set):
            yield "INSERT INTO user_set (packed) VALUES (?)", (packed,)
    if changes.users:
        yield from _changed_users(changes.users)
    if changes.rejected:
        rejected = {
            key: (user.email, user.cause, user.at_ms, user.user, user.by_core) if user is not None else None
            for key, user in changes.rejected.items()
        }
        yield from _REJECTED.statements(rejected)
    if changes.departed or changes.departed_done is not None:
        yield from _departed(changes.departed, changes.departed_done)
    loans = {
        name: (part.loan, part.kind, part.worker, part.body) if part is not None else None
        for name, part in changes.loans.items()
    }
    for table, rows in (
        (_SUPERSEDED, changes.superseded),
        (_TAKEN, changes.taken),
        (_ROUTING, changes.routing),
        (_LOANS, loans),
        (_SETTLED, changes.settled),
    ):
        if rows:
            yield from table.statements(rows)


@dataclass(slots=True)
class Transaction:
    """What one transaction writes."""

    statements: Iterable[Statement]
    #: Bytes of each row that it appends to the log of counters.
    log_bytes: Sequence[int] = ()
    #: It needs much memory for pages.
    large: bool = False


def transaction_of(changes: StoreChanges) -> Transaction:
    """Return what writes changes. Nearly all of the work is done when its statements are gone through."""
    large = len(changes.users) >= LARGE_ROWS or changes.user_set is not None
    if not changes.counters:
        return Transaction(statements_of(changes), large=large)
    log = list(pack_all(changes.counters))
    append: list[Statement] = [("INSERT INTO counter_log (packed) VALUES (?)", (packed,)) for packed in log]
    return Transaction(chain(statements_of(changes), append), [len(packed) for packed in log], large)


def small_transaction_of(changes: StoreChanges) -> Transaction | None:
    """Return what writes changes, ready to be written, where making it takes no time to speak of; None where it may."""
    if changes.counters or changes.loans or changes.user_set is not None or changes.rows > SMALL_ROWS:
        return None
    return Transaction(list(statements_of(changes)))


def _changed_users(users: Mapping[str, bytes | None]) -> Iterator[Statement]:
    """Return what appends changed users to their log: they lie anywhere among all, so rows of their own would be a page each."""
    gone: str | None = json.dumps([key for key, message in users.items() if message is None])
    rows = pack({key: message for key, message in users.items() if message is not None})
    for packed in chain([next(rows, b"")], rows):
        yield "INSERT INTO user_log (packed, gone) VALUES (?, ?)", (packed, gone if gone != "[]" else None)
        gone = None


def _departed(users: Mapping[str, DepartedUser], done: int | None) -> Iterator[Statement]:
    """Return what appends users who departed to their log, and takes the generations out that are done with."""
    if done is not None:
        # Before there was a log they were in a table of their own, and are in the log by now.
        yield "DELETE FROM departed", ()
        yield "DELETE FROM departed_log WHERE generation <= ?", (done,)
        users = {key: user for key, user in users.items() if user.generation > done}
    if users:
        generation = max(user.generation for user in users.values())
        for packed in pack({key: user.encode() for key, user in users.items()}):
            yield "INSERT INTO departed_log (generation, packed) VALUES (?, ?)", (generation, packed)


def fold_statements(rows: Mapping[str, LedgerRow | None]) -> Iterator[Statement]:
    """Return what puts the newest rows of the log of counters into their table.

    Args:
        rows: Name -> row; None for a counter that is gone.

    Yields:
        Statements, to be executed in one transaction.
    """
    yield from _COUNTERS.statements(rows)
