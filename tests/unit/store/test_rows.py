"""Rows as text: what one version wrote the next one reads."""

from __future__ import annotations

import pytest

from pgnode.store.rows import LedgerRow, LedgerRun, LoanPart, RejectedUser


@pytest.mark.parametrize("row", [LedgerRow(100, 40, 30, 2), LedgerRow(100, 40, 30, None), LedgerRow(0, 0, 0, 0)])
def test_a_ledger_row_is_read_as_written(row: LedgerRow) -> None:
    assert LedgerRow.decode(row.encode()) == row


def test_a_row_of_three_numbers_names_no_run() -> None:
    assert LedgerRow.decode("100 40 30") == LedgerRow(100, 40, 30, None)


def test_the_run_is_read_as_written() -> None:
    run = LedgerRun(3, "boot:17:4711")
    assert LedgerRun.decode(run.encode()) == run


def test_a_run_without_a_number_is_the_first() -> None:
    assert LedgerRun.decode("boot:17:4711") == LedgerRun(1, "boot:17:4711")


def test_a_loan_is_read_as_written() -> None:
    part = LoanPart("id", "user", "rest-1", b"\x00\n\xff")
    assert LoanPart.decode(part.encode()) == part


def test_a_rejected_user_is_read_as_written() -> None:
    user = RejectedUser("A@b", "why", 1234, b"\x00\xff", by_core=True)
    assert RejectedUser.decode(user.encode()) == user


@pytest.mark.parametrize("text", ["", "[]", '{"email": "a"}'])
def test_what_is_no_rejected_user_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        RejectedUser.decode(text)
