"""The log goes into the table step by step, and each step finds the file right; what other commits do is in test_database.py."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.counter_log import pack, unpack
from pgnode.store.log_folding import fold_steps, in_order
from pgnode.store.rows import LedgerRow
from pgnode.store.schema import MIGRATIONS
from pgnode.store.statements import Statement

NAMES = st.text("abcé>", min_size=1, max_size=3)
ROWS = st.dictionaries(NAMES, st.none() | st.builds(LedgerRow, *[st.integers(0, 9)] * 4), max_size=6)


@contextlib.contextmanager
def store() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        for statement in chain.from_iterable(MIGRATIONS):
            db.execute(statement)
        yield db


def append(db: sqlite3.Connection, rows: dict[str, LedgerRow | None]) -> None:
    db.execute("INSERT INTO counter_log (packed) VALUES (?)", (pack(rows),))


def shown(db: sqlite3.Connection) -> dict[str, LedgerRow]:
    """What the table and the log say together."""
    table = {
        name: LedgerRow(*row) for name, *row in db.execute("SELECT name, total, reported, seen, run FROM counters")
    }
    log = unpack(packed for (packed,) in db.execute("SELECT packed FROM counter_log ORDER BY id"))
    return {name: row for name, row in (table | log).items() if row is not None}


@given(st.lists(ROWS, max_size=4), st.lists(ROWS, max_size=4), st.integers(1, 3))
def test_the_file_is_right_after_each_step(
    before: list[dict[str, LedgerRow | None]], meanwhile: list[dict[str, LedgerRow | None]], most: int
) -> None:
    with store() as db:

        def execute(statements: Iterable[Statement]) -> None:
            for statement in statements:
                db.execute(*statement)

        wanted: dict[str, LedgerRow | None] = {}
        for rows in before:
            append(db, rows)
            wanted |= rows
        left = list(meanwhile)
        for _ in fold_steps(db, execute, most):
            assert shown(db) == {name: row for name, row in wanted.items() if row is not None}
            if left:
                append(db, left[0])
                wanted |= left.pop(0)
        assert shown(db) == {name: row for name, row in wanted.items() if row is not None}
        assert db.execute("SELECT count(*) FROM counter_log").fetchone() == (len(meanwhile) - len(left),)


@given(ROWS, st.integers(1, 3))
def test_rows_come_by_name(rows: dict[str, LedgerRow | None], most: int) -> None:
    steps = list(in_order(rows, most))
    assert [name for step in steps for name in step] == sorted(rows)
    assert all(len(step) <= most for step in steps)
    assert {name: row for step in steps for name, row in step.items()} == rows


def test_a_damaged_row_leaves_the_log() -> None:
    with store() as db:
        db.execute("INSERT INTO counter_log (packed) VALUES (x'00')")
        with pytest.raises(ValueError, match="damaged"):
            list(fold_steps(db, lambda _: None))
        assert db.execute("SELECT count(*) FROM counter_log").fetchone() == (1,)
