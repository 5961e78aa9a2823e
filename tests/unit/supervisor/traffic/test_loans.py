"""Who carries what was handed out, and when it counts as lost."""

from __future__ import annotations

from pgnode.store.rows import LoanPart
from pgnode.supervisor.traffic.loans import DEAD_SECONDS, MISSING_LOOKS, OVERDUE_SECONDS, Loan, Loans


def lent(*ids: str, worker: str = "worker") -> Loans:
    loans = Loans()
    for loan_id in ids:
        loans.add(Loan(loan_id, "user", worker, 0.0, {f"{loan_id}/0": b"stats"}))
    return loans


def test_a_loan_is_settled_once_and_remembered() -> None:
    loans = lent("a")
    assert loans.settled("a") is not None
    assert loans.settled("a") is None
    assert loans.was_settled("a")
    assert len(loans) == 0


def test_a_settlement_may_come_before_what_it_is_about() -> None:
    loans = Loans()
    assert loans.settled("a") is None
    assert loans.was_settled("a")


def test_a_worker_that_is_missing_again_and_again_has_lost_its_loans_where_somebody_waits() -> None:
    loans = lent("a")
    looks = [loans.looked(float(now), (), wanted=True) for now in range(MISSING_LOOKS)]
    assert [len(lost) for lost in looks] == [0] * (MISSING_LOOKS - 1) + [1]


def test_a_worker_that_is_seen_again_has_lost_nothing() -> None:
    loans = lent("a")
    for now in range(MISSING_LOOKS - 1):
        assert loans.looked(float(now), (), wanted=True) == []
    assert loans.looked(10.0, ("worker",), wanted=True) == []
    assert loans.looked(11.0, (), wanted=True) == []


def test_nobody_waits_for_what_a_dead_worker_carried_so_it_is_owed_again_later() -> None:
    loans = lent("a")
    for now in range(MISSING_LOOKS):
        assert loans.looked(float(now), (), wanted=False) == []
    assert [loan.id for loan in loans.looked(DEAD_SECONDS, (), wanted=False)] == ["a"]


def test_a_loan_ends_although_its_worker_lives() -> None:
    loans = lent("a")
    assert loans.looked(OVERDUE_SECONDS - 1, ("worker",), wanted=True) == []
    assert [loan.id for loan in loans.looked(OVERDUE_SECONDS, ("worker",), wanted=False)] == ["a"]


def test_what_the_store_has_is_taken_over_with_all_its_parts() -> None:
    loans = lent("a", "b")
    loans.get("a").parts["a/1"] = b"more"  # type: ignore[union-attr]
    open_loans = [loan for name in "ab" if (loan := loans.get(name)) is not None]
    stored = {
        name: LoanPart(loan.id, loan.kind, loan.worker, body)
        for loan in open_loans
        for name, body in loan.parts.items()
    }
    again = Loans()
    again.restore(stored, ["c"], 7.0)
    assert {loan.id: loan.parts for loan in again.of_kind("user")} == {
        "a": {"a/0": b"stats", "a/1": b"more"},
        "b": {"b/0": b"stats"},
    }
    assert again.workers() == ["worker"]
    assert again.was_settled("c")
    assert again.get("a").since == 7.0  # type: ignore[union-attr]
