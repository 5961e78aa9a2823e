"""Rows that are behind the loans are read as they were when these were made; a crash at any moment costs and doubles nothing."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.lent_bytes import count_lent, counters_of
from pgnode.store.rows import LedgerRow, LedgerRun, LoanPart
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.response_encoding import encode_stats

A, B = "user>>>alice>>>traffic>>>uplink", "user>>>bob>>>traffic>>>downlink"
RUN = LedgerRun(3, "core")


def part(loan: str, **lent: int) -> LoanPart:
    return LoanPart(loan, "user", "w", encode_stats([({"a": A, "b": B}[name], value) for name, value in lent.items()]))


def test_a_row_behind_a_loan_is_brought_up_to_it() -> None:
    rows = {A: LedgerRow(100, 40, 70, 3), B: LedgerRow(5, 5, 5, 3)}
    # 60 of A were owed by the row, and 90 were lent.
    count_lent(rows, RUN, [part("l", a=90)])
    assert rows == {A: LedgerRow(130, 40, 100, 3), B: LedgerRow(5, 5, 5, 3)}


def test_all_loans_of_a_counter_count_together() -> None:
    rows = {A: LedgerRow(100, 40, 70, 3)}
    count_lent(rows, RUN, [part("l", a=60), part("m", a=7)])
    assert rows == {A: LedgerRow(107, 40, 77, 3)}


def test_a_row_that_is_ahead_is_left_as_it_is() -> None:
    rows = {A: LedgerRow(100, 40, 70, 3)}
    count_lent(rows, RUN, [part("l", a=60)])
    count_lent(rows, RUN, [part("l", a=10)])
    assert rows == {A: LedgerRow(100, 40, 70, 3)}


def test_what_an_earlier_core_counted_is_not_seen_of_this_one() -> None:
    rows = {A: LedgerRow(100, 100, 70, 2)}
    count_lent(rows, RUN, [part("l", a=9)])
    assert rows == {A: LedgerRow(109, 100, 9, 3)}


def test_a_counter_without_a_row_gets_one() -> None:
    rows: dict[str, LedgerRow] = {}
    count_lent(rows, RUN, [part("l", b=9)])
    assert rows == {B: LedgerRow(9, 0, 9, 3)}
    rows = {}
    count_lent(rows, None, [part("l", b=9)])
    assert rows == {B: LedgerRow(9, 0, 9, 0)}


def test_a_damaged_loan_changes_nothing() -> None:
    rows = {A: LedgerRow(100, 40, 70, 3)}
    count_lent(rows, RUN, [LoanPart("l", "user", "w", b"\xff\xff garbage")])
    assert rows == {A: LedgerRow(100, 40, 70, 3)}


class World:
    """A core, a ledger, and a store to which things are written when the supervisor writes them."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.core: dict[str, int] = {}
        self.cores = 1
        self.rows: dict[str, LedgerRow] = {}
        self.run: LedgerRun | None = None
        self.loans: dict[str, LoanPart] = {}
        self.number = 0

    def write_rows(self, among: Any = None, most: int | None = None) -> None:
        rows = self.ledger.take_unstored(among, most=most)
        if rows:
            self.run = self.ledger.last_run
        for name, row in rows.items():
            assert row is not None
            self.rows[name] = row

    def read(self, ledger: Ledger) -> None:
        ledger.read(f"core{self.cores}", list(self.core.items()))

    def step(self, what: str, name: str, amount: int) -> None:
        if what == "move":
            self.core[name] = self.core.get(name, 0) + amount
        elif what == "read":
            self.read(self.ledger)
        elif what == "store":
            self.write_rows()
        elif what == "store a part":
            self.write_rows(most=1)
        elif what == "lend":
            self.number += 1
            loan = f"loan{self.number}"
            lent = self.ledger.lend(loan, [A, B] if amount % 2 else [name])
            if lent:
                self.loans[loan] = LoanPart(loan, "user", "w", encode_stats(lent))
                self.run = self.ledger.last_run
        elif what in ("delivered", "returned") and self.loans:
            loan = list(self.loans)[amount % len(self.loans)]
            del self.loans[loan]
            lent = self.ledger.settle(loan, delivered=what == "delivered")
            self.write_rows([counter for counter, _ in lent])
        elif what == "another core":
            # It is read before its end, and all is stored.
            self.read(self.ledger)
            self.write_rows()
            self.core, self.cores = {}, self.cores + 1

    def restored(self) -> Ledger:
        rows = dict(self.rows)
        count_lent(rows, self.run, self.loans.values())
        ledger = Ledger()
        ledger.restore(self.run, rows, {name: counters_of(one) for name, one in self.loans.items()})
        return ledger


def shown(ledger: Ledger) -> dict[str, tuple[int, int, int]]:
    """What the books say of each counter that moved."""
    entries = {name: ledger.get(name) for name in (A, B)}
    return {name: (e.total, e.reported, e.lent) for name, e in entries.items() if e is not None and e.total}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["move", "read", "store", "store a part", "lend", "delivered", "returned", "another core"]),
        st.sampled_from([A, B]),
        st.integers(1, 100),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_supervisor_that_was_killed_goes_on_with_the_core_as_if_it_had_not_been(
    steps: list[tuple[str, str, int]],
) -> None:
    world = World()
    for step in steps:
        world.step(*step)
        restored = world.restored()
        before = shown(world.ledger)
        for name, (total, reported, lent) in shown(restored).items():
            # The core was killed with it: what is lent or reported was counted, and nothing was that had not been.
            assert reported + lent <= total <= before[name][0]
            assert (reported, lent) == before[name][1:]
        went_on = copy.deepcopy(world.ledger)
        for ledger in (restored, went_on):
            world.read(ledger)
        assert shown(restored) == shown(went_on)
