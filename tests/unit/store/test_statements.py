"""Statements: few of them, in one order, for any number of rows. What they do is tested with the file."""

from __future__ import annotations

import pytest

from pgnode.store.changes import StoreChanges
from pgnode.store.rows import LedgerRow, LedgerRun
from pgnode.store.statements import (
    LARGE_ROWS,
    SMALL_ROWS,
    SORTED_ROWS,
    STATEMENT_ROWS,
    fold_statements,
    small_transaction_of,
    statements_of,
    transaction_of,
)
from pgnode.store.user_set import ROW_USERS, unpack


def test_nothing_takes_no_statement() -> None:
    assert list(statements_of(StoreChanges())) == []
    assert list(fold_statements({})) == []


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(1, [1]), (STATEMENT_ROWS, [STATEMENT_ROWS]), (2 * STATEMENT_ROWS + 3, [STATEMENT_ROWS, STATEMENT_ROWS, 3])],
)
def test_rows_share_statements(rows: int, sizes: list[int]) -> None:
    users = {f"user{number}": str(number) for number in range(rows)}
    made = list(statements_of(StoreChanges(superseded=dict(users))))
    assert [len(values) // 2 for _, values in made] == sizes
    assert [statement.count("(?, ?)") for statement, _ in made] == sizes
    assert [value for _, values in made for value in values] == [value for user in users.items() for value in user]


def test_removals_come_first_and_share_statements() -> None:
    changes = StoreChanges(superseded={"a": "1", "b": None, "c": None})
    [(remove, gone), (put, kept)] = statements_of(changes)
    assert remove.startswith("DELETE FROM superseded")
    assert (gone, kept) == (["b", "c"], ["a", "1"])
    assert put.startswith("INSERT INTO superseded")


def test_all_users_take_the_place_of_what_was_stored() -> None:
    changes = StoreChanges(user_set={"a": b"1", "b": b"2"}, users={"c": b"3"})
    *removals, (put, packed), (append, _) = statements_of(changes)
    assert sorted(removals) == [(f"DELETE FROM {name}", ()) for name in ("user_log", "user_set", "users")]
    assert put.startswith("INSERT INTO user_set")
    assert unpack(packed) == {"a": b"1", "b": b"2"}
    assert append.startswith("INSERT INTO user_log")


def test_changed_users_are_one_row_of_their_log() -> None:
    [(_, (packed, gone))] = statements_of(StoreChanges(users={"a": b"1", "b": None, "c": b"3", "d": None}))
    assert (unpack([packed]), gone) == ({"a": b"1", "c": b"3"}, '["b", "d"]')
    assert [values for _, values in statements_of(StoreChanges(users={"a": None}))] == [(b"", '["a"]')]
    users: dict[str, bytes | None] = {str(number): b"" for number in range(ROW_USERS + 1)}
    rows = [values for _, values in statements_of(StoreChanges(users=users | {"gone": None}))]
    assert [gone for _, gone in rows] == ['["gone"]', None]
    assert list(unpack(packed for packed, _ in rows)) == list(users)


def test_what_takes_long_to_make_is_no_small_transaction() -> None:
    users: dict[str, bytes | None] = {str(number): b"" for number in range(SMALL_ROWS)}
    small = small_transaction_of(StoreChanges(users=dict(users)))
    assert small is not None
    assert small.statements == list(statements_of(StoreChanges(users=dict(users))))
    assert (small.log_bytes, small.large) == ((), False)
    for changes in (
        StoreChanges(users=users, meta={"active": 1}),
        StoreChanges(user_set={}),
        StoreChanges(counters={"a": None}),
        StoreChanges(loans={"a": None}),
    ):
        assert small_transaction_of(changes) is None


def test_a_transaction_knows_what_it_adds_to_the_log_of_counters_and_whether_it_is_large() -> None:
    transaction = transaction_of(StoreChanges(meta={"active": 1}, counters={"a": LedgerRow(1, 2, 3, 4)}))
    *_, (append, [packed]) = transaction.statements
    assert append.startswith("INSERT INTO counter_log")
    assert transaction.log_bytes == [len(packed)]
    assert not transaction.large
    many: dict[str, bytes | None] = {str(number): b"" for number in range(LARGE_ROWS)}
    assert [transaction_of(changes).large for changes in (StoreChanges(users=many), StoreChanges(user_set={}))] == [
        True,
        True,
    ]
    assert transaction_of(StoreChanges()).log_bytes == ()


def test_rows_of_several_columns() -> None:
    [(statement, values)] = fold_statements({"a": LedgerRow(1, 2, 3, 4), "b": LedgerRow(5, 6, 7, 8)})
    assert statement.count("(?, ?, ?, ?, ?)") == 2
    assert values == ["a", 1, 2, 3, 4, "b", 5, 6, 7, 8]


def test_many_rows_are_in_the_order_of_their_table() -> None:
    users: dict[str, str | None] = {f"{number * 7 % SORTED_ROWS:04}": "" for number in range(SORTED_ROWS)}
    keys = [value for _, values in statements_of(StoreChanges(superseded=users)) for value in values[::2]]
    assert keys == sorted(users)


def test_the_run_of_the_counters_is_a_row_of_meta() -> None:
    run = LedgerRun(7, "boot:1:2")
    [(statement, values)] = statements_of(StoreChanges(meta={"active": 1}, run=run))
    assert statement.startswith("INSERT INTO meta")
    assert values == ["active", 1, "run", run.encode()]
