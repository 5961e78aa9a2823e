"""How the log of counters goes into their table: in steps, between which other things may be committed."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from pgnode.store.counter_log import unpack
from pgnode.store.rows import LedgerRow
from pgnode.store.statements import Statement, fold_statements

#: Rows of the table that are written at a time: some 20 ms.
STEP_ROWS = 5_000


def fold_steps(
    db: sqlite3.Connection, execute: Callable[[Iterable[Statement]], None], most: int = STEP_ROWS
) -> Iterator[None]:
    """Put what the log of counters says into their table.

    Whoever reads the file takes rows of the log before those of the table. Only the last step removes them from the log, so what
    is read is right after each step.

    Args:
        db: The file.
        execute: Does some statements, all of them or none.
        most: So many rows of the table are written at a time.

    Yields:
        After each step.

    Raises:
        sqlite3.Error: All of it is still in the log.
        ValueError: A row of the log is damaged; all of it is still in the log.
    """
    [newest] = db.execute("SELECT coalesce(max(id), 0) FROM counter_log").fetchone()
    rows: dict[str, LedgerRow | None] = {}
    at = 0
    # One by one: a cursor that is open would keep what it sees from one step to the next.
    while found := db.execute(
        "SELECT id, packed FROM counter_log WHERE id > ? AND id <= ? ORDER BY id LIMIT 1", (at, newest)
    ).fetchone():
        at, packed = found
        rows.update(unpack([packed]))
        yield
    for step in in_order(rows, most):
        execute(fold_statements(step))
        yield
    execute([("DELETE FROM counter_log WHERE id <= ?", (newest,))])


def in_order(rows: Mapping[str, LedgerRow | None], most: int) -> Iterator[dict[str, LedgerRow | None]]:
    """Put rows in the order of the table: else each step would write nearly all of its pages.

    Args:
        rows: Name -> row, in any order.
        most: So many are handed out at a time.

    Yields:
        Some of them, by name.
    """
    # Sorted by parts, for a sort of all would let nothing else of the process have a turn.
    names = iter(rows)
    merged = heapq.merge(*iter(lambda: sorted(islice(names, most)), []))
    while step := list(islice(merged, most)):
        yield {name: rows[name] for name in step}
