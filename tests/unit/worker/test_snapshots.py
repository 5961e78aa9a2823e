"""How old a worker's copy of the statistics is, and when that is too old."""

from __future__ import annotations

import pytest

from pgnode.bus.snapshots import POLLED, Polled, Snapshot
from pgnode.worker.snapshots import LocalSnapshots


def reads(age_ms: int | None, error: str) -> LocalSnapshots:
    made = LocalSnapshots()
    made.take(Snapshot(POLLED, 1, 0, Polled(age_ms=age_ms, interval_ms=5_000, error=error).encode()))
    return made


def test_the_age_is_that_of_the_reading_and_not_of_the_news() -> None:
    age = reads(7_000, "").age_seconds()
    assert age is not None
    assert 7 <= age < 60
    assert reads(None, "").age_seconds() is None
    assert LocalSnapshots().age_seconds() is None


@pytest.mark.parametrize(
    ("age_ms", "error", "overdue"),
    [(11_000, "no answer", "no answer"), (2_000, "no answer", ""), (11_000, "", ""), (None, "no answer", "")],
)
def test_too_old_is_what_failed_for_two_intervals(age_ms: int | None, error: str, overdue: str) -> None:
    assert reads(age_ms, error).overdue() == overdue
