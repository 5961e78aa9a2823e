"""The table of faults: rows from what was measured, the page, and that every fault has its row."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from pgnode.testing.traffic import HeldTransfer, TransferError
from tests.faults import table
from tests.faults.table import BYTES, CHANGES, DROPPED, LEFT, Measured, row_of, rows_in, rows_of, updated
from tests.faults.trial import Trial

PAGE = "# Faults\n\n<!-- generated: faults -->\n<!-- end -->\nend\n"


def measured(fault: str = "a | b", *, dropped: int = 0, seconds: float = 1.0) -> Measured:
    return Measured(fault, 1, {DROPPED: (dropped, 2), CHANGES: (0, 1_500)}, seconds, {BYTES: "nobody counts here"})


def test_the_tries_of_a_fault_are_put_together() -> None:
    row = row_of([measured(seconds=1.04), measured(dropped=1, seconds=2.06)])
    assert row.cells == ("2", "1 of 4", "0 of 3,000", "–", "–", "2.1")  # noqa: RUF001 - the dash of the page
    assert row.notes == {BYTES: "nobody counts here"}


def test_what_was_measured_goes_through_a_report() -> None:
    assert Measured.from_mapping(measured().as_mapping()) == measured()


def test_a_page_keeps_rows_of_other_faults_and_loses_those_without_a_test() -> None:
    first = updated(
        PAGE, rows_of([measured("one"), measured("gone"), measured("a | b")]), ["one", "gone", "a | b"], "here"
    )
    assert list(rows_in(first)) == ["one", "gone", "a | b"]
    second = updated(first, rows_of([measured("one", dropped=2)]), ["a | b", "one"], "there")
    found = rows_in(second)
    assert list(found) == ["a | b", "one"]
    assert found["one"].cells[1] == "2 of 2"
    assert found["a | b"] == row_of([measured()])
    assert "\nthere\n" in second
    assert "\nhere\n" not in second
    assert second.endswith("end\n")


def test_a_column_has_a_figure_or_a_reason() -> None:
    trial = Trial("f", unmeasured={BYTES: "nobody counts"})
    trial.changes(0, 1)
    trial.struck()
    trial.well()
    assert trial.measured.seconds is not None
    with pytest.raises(AssertionError, match="connections dropped"):
        trial.check_complete()
    trial.connections([HeldTransfer("one")])
    with pytest.raises(AssertionError, match="left behind"):
        trial.check_complete()
    trial.left(0, 3)
    trial.left(1, 4)
    assert trial.measured.counts[LEFT] == (1, 7)
    trial.check_complete()


def test_only_the_end_of_the_core_may_break_a_connection() -> None:
    broken = HeldTransfer("one", broken="it broke")
    with pytest.raises(TransferError, match="it broke"):
        Trial("f").connections([broken])
    trial = Trial("f", core_ends="the core was killed")
    trial.connections([broken])
    assert trial.measured.counts[DROPPED] == (1, 1)
    assert trial.measured.notes[DROPPED] == "the core was killed"


def test_of_several_faults_in_one_try_the_slowest_counts() -> None:
    trial = Trial("f")
    trial.well()
    assert trial.measured.seconds is None
    for _ in range(2):
        trial.struck()
        trial.well()
    assert (trial.measured.seconds or -1) >= 0


def test_parameters_are_put_into_the_words() -> None:
    module = ModuleType("module")

    @pytest.mark.fault("{what} {count} times")
    @pytest.mark.parametrize("what", ["one", pytest.param("two", marks=pytest.mark.timeout(9))])
    @pytest.mark.parametrize(("count", "other"), [(3, 4)])
    def test_something() -> None: ...

    module.test_something = test_something  # type: ignore[attr-defined]
    assert list(table.faults_of(module)) == ["one 3 times", "two 3 times"]


@pytest.mark.parametrize("name", [name for name in table.modules() if name.startswith("tests.faults")])
def test_every_fault_has_a_row(name: str) -> None:
    """Give it the mark ``fault``."""
    assert table.without_a_row(importlib.import_module(name)) == []


def test_no_two_faults_have_the_same_words() -> None:
    faults = [fault for name in table.modules() for fault in table.faults_of(importlib.import_module(name))]
    assert sorted(faults) == sorted(set(faults))


def test_the_page_names_each_fault() -> None:
    """``make faults`` writes it."""
    named = rows_in(table.PAGE.read_text(encoding="utf-8").split("<!-- generated: faults -->")[1])
    assert list(named) == table.known_faults()
