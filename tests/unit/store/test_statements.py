"""Statements: few of them, in one order, for any number of rows. What they do is tested with the file."""

from __future__ import annotations

import pytest

from pgnode.store.changes import StoreChanges
from pgnode.store.rows import LedgerRow, LedgerRun
from pgnode.store.statements import SORTED_ROWS, STATEMENT_ROWS, fold_statements, statements_of


def test_nothing_takes_no_statement() -> None:
    assert list(statements_of(StoreChanges())) == []
    assert list(fold_statements({})) == []


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(1, [1]), (STATEMENT_ROWS, [STATEMENT_ROWS]), (2 * STATEMENT_ROWS + 3, [STATEMENT_ROWS, STATEMENT_ROWS, 3])],
)
def test_rows_share_statements(rows: int, sizes: list[int]) -> None:
    users = {f"user{number}": bytes([number]) for number in range(rows)}
    made = list(statements_of(StoreChanges(users=dict(users))))
    assert [len(values) // 2 for _, values in made] == sizes
    assert [statement.count("(?, ?)") for statement, _ in made] == sizes
    assert [value for _, values in made for value in values] == [value for user in users.items() for value in user]


def test_removals_come_first_and_share_statements() -> None:
    changes = StoreChanges(users={"a": b"1", "b": None, "c": None})
    [(remove, gone), (put, kept)] = statements_of(changes)
    assert remove.startswith("DELETE FROM users")
    assert (gone, kept) == (["b", "c"], ["a", b"1"])
    assert put.startswith("INSERT INTO users")


def test_all_users_take_the_place_of_what_was_stored() -> None:
    changes = StoreChanges(user_set={"a": b"1", "b": b"2"}, users={"a": None, "c": b"3"})
    [(first, _), (second, _), (third, packed), (fourth, values)] = statements_of(changes)
    assert (first, second) == ("DELETE FROM user_set", "DELETE FROM users")
    assert third.startswith("INSERT INTO user_set")
    assert len(packed) == 1
    assert fourth.startswith("INSERT INTO users")
    assert values == ["a", None, "c", b"3"], "whoever is gone is marked, and not only missing"


def test_who_is_gone_is_marked_only_where_there_is_a_set_of_users() -> None:
    gone = StoreChanges(users={"a": None})
    assert next(iter(statements_of(gone)))[0].startswith("DELETE FROM users")
    assert next(iter(statements_of(gone, user_set=True)))[0].startswith("INSERT INTO users")
    nobody = StoreChanges(user_set={}, users={"a": None})
    assert list(statements_of(nobody, user_set=True))[-1][0].startswith("DELETE FROM users WHERE")


def test_rows_of_several_columns() -> None:
    [(statement, values)] = fold_statements({"a": LedgerRow(1, 2, 3, 4), "b": LedgerRow(5, 6, 7, 8)})
    assert statement.count("(?, ?, ?, ?, ?)") == 2
    assert values == ["a", 1, 2, 3, 4, "b", 5, 6, 7, 8]


def test_many_rows_are_in_the_order_of_their_table() -> None:
    users: dict[str, bytes | None] = {f"{number * 7 % SORTED_ROWS:04}": b"" for number in range(SORTED_ROWS)}
    keys = [value for _, values in statements_of(StoreChanges(users=users)) for value in values[::2]]
    assert keys == sorted(users)


def test_the_run_of_the_counters_is_a_row_of_meta() -> None:
    run = LedgerRun(7, "boot:1:2")
    [(statement, values)] = statements_of(StoreChanges(meta={"active": 1}, run=run))
    assert statement.startswith("INSERT INTO meta")
    assert values == ["active", 1, "run", run.encode()]
