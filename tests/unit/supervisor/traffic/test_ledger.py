"""The books: what was delivered plus what is owed is what was counted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from pgnode.store.rows import LedgerRow, LedgerRun
from pgnode.supervisor.traffic.ledger import Ledger

UP, DOWN = "user>>>a>>>traffic>>>uplink", "user>>>a>>>traffic>>>downlink"
NAMES = st.sampled_from([UP, DOWN, "user>>>b>>>traffic>>>uplink", "inbound>>>x>>>traffic>>>uplink"])


def total(ledger: Ledger, name: str = UP) -> int:
    entry = ledger.get(name)
    assert entry is not None
    return entry.total


def stored_by(ledger: Ledger) -> dict[str, LedgerRow]:
    return {name: row for name, row in ledger.take_unstored().items() if row is not None}


def test_a_counter_that_goes_down_is_a_new_one() -> None:
    ledger = Ledger()
    ledger.read("1", [(UP, 100)])
    ledger.read("1", [(UP, 30)])
    assert total(ledger) == 130


def test_a_new_core_starts_from_zero_also_when_it_counts_more() -> None:
    ledger = Ledger()
    ledger.read("1", [(UP, 100)])
    ledger.read("2", [(UP, 150)])
    assert total(ledger) == 250


def test_what_is_written_off_is_owed_to_nobody() -> None:
    ledger = Ledger()
    ledger.read("1", [(UP, 100), (DOWN, 5)])
    ledger.lend("loan", [UP])
    assert ledger.write_off() == [DOWN]
    ledger.settle("loan", delivered=False)
    ledger.read("1", [(UP, 100), (DOWN, 7)])
    assert ledger.lend("next", [UP, DOWN]) == [(UP, 100), (DOWN, 2)]
    assert stored_by(ledger)[DOWN].reported == 5


def test_reading_again_changes_nothing() -> None:
    ledger = Ledger()
    assert ledger.read("1", [(UP, 7)]) == [UP]
    assert ledger.read("1", [(UP, 7)]) == []


def test_what_is_on_loan_is_not_handed_out_again() -> None:
    ledger = Ledger()
    ledger.read("1", [(UP, 7), (DOWN, 0)])
    assert ledger.lend("one", [UP, DOWN, "unknown"]) == [(UP, 7)]
    ledger.read("1", [(UP, 10)])
    assert ledger.lend("two", [UP, DOWN]) == [(UP, 3)]
    assert ledger.lend("three", [UP, DOWN]) == []


def test_the_same_request_again_gets_the_same_loan() -> None:
    ledger = Ledger()
    ledger.read("1", [(UP, 7)])
    first = ledger.lend("one", [UP])
    ledger.read("1", [(UP, 10)])
    assert ledger.lend("one", [UP]) == first == [(UP, 7)]


def test_a_lost_answer_is_owed_again_and_a_delivered_one_is_not() -> None:
    ledger = Ledger()
    ledger.read("1", [(UP, 7)])
    ledger.lend("one", [UP])
    ledger.settle("one", delivered=False)
    assert ledger.lend("two", [UP]) == [(UP, 7)]
    ledger.settle("two", delivered=True)
    assert ledger.lend("three", [UP]) == []
    assert ledger.settle("two", delivered=False) == []


def test_a_removed_user_is_forgotten_when_everything_was_reported_and_no_core_counts_it_any_more() -> None:
    ledger = Ledger()
    ledger.read("1", [(UP, 7)])
    assert ledger.forget([UP], lambda _name: False) == [], "it is owed"
    ledger.lend("one", [UP])
    ledger.settle("one", delivered=True)
    assert ledger.forget([UP], lambda _name: False) == [], "the core still has the counter"
    ledger.read("2", [(DOWN, 1)])
    assert ledger.forget([UP, DOWN], lambda _name: True) == [], "the user is there"
    assert ledger.forget([UP, DOWN], lambda _name: False) == [UP]
    assert ledger.take_unstored()[UP] is None


def test_books_of_an_earlier_version_are_taken_over() -> None:
    ledger = Ledger()
    ledger.restore(LedgerRun(1, "boot:17:4711"), {UP: LedgerRow(100, 40, 30, 1)}, {})
    ledger.read("boot:17:4711", [(UP, 35)])
    entry = ledger.get(UP)
    assert entry is not None
    assert (entry.total, entry.reported) == (105, 40)
    ledger.read("boot:18:4712", [(UP, 5)])
    assert total(ledger) == 110


@given(st.dictionaries(st.text(min_size=4), st.integers(min_value=0, max_value=2**60)))
def test_what_is_stored_comes_back(counters: dict[str, int]) -> None:
    ledger = Ledger()
    ledger.read("3", counters.items())
    lent = ledger.lend("open", list(counters)[::2])
    again = Ledger()
    again.restore(ledger.last_run, stored_by(ledger), {"open": lent})
    again.read("3", counters.items())
    for name in counters:
        assert again.get(name) == ledger.get(name)


class Books(RuleBasedStateMachine):
    """A core that counts, dies and is read whole or in part; callers whose answers arrive, are lost, or stay open; a store.

    The store holds what was stored, and a node that restarts has that and nothing else.
    """

    loans = Bundle("loans")

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger()
        self.stored: dict[str, LedgerRow] = {}
        self.stored_run = self.ledger.last_run
        self.stored_loans: dict[str, list[tuple[str, int]]] = {}
        self.run_number = 1
        self.core: dict[str, int] = {}
        self.read_so_far: dict[str, int] = {}
        self.counted = 0
        self.delivered = 0
        self.held: dict[str, list[tuple[str, int]]] = {}
        self.next_loan = 0

    def store(self) -> None:
        for name, row in self.ledger.take_unstored().items():
            if row is None:
                self.stored.pop(name, None)
            else:
                self.stored[name] = row
        self.stored_run = self.ledger.last_run
        open_loans = set(self.ledger.loans())
        self.stored_loans = {loan: lent for loan, lent in self.held.items() if loan in open_loans}

    @rule(name=NAMES, count=st.integers(min_value=0, max_value=10**9))
    def traffic(self, name: str, count: int) -> None:
        self.core[name] = self.core.get(name, 0) + count

    @rule(names=st.sets(NAMES))
    def poll(self, names: set[str]) -> None:
        """All counters, or some of them."""
        read = {name: value for name, value in self.core.items() if not names or name in names}
        self.ledger.read(str(self.run_number), read.items())
        self.counted += sum(value - self.read_so_far.get(name, 0) for name, value in read.items())
        self.read_so_far |= read
        self.store()

    @rule()
    def core_dies(self) -> None:
        self.core, self.read_so_far = {}, {}
        self.run_number += 1

    @rule(target=loans, names=st.sets(NAMES))
    def lend(self, names: set[str]) -> str:
        self.next_loan += 1
        loan = str(self.next_loan)
        self.held[loan] = self.ledger.lend(loan, names or list(self.ledger.names()))
        self.store()
        return loan

    @rule(loan=loans)
    def the_same_request_again(self, loan: str) -> None:
        if loan in self.ledger.loans():
            assert self.ledger.lend(loan, list(self.ledger.names())) == self.held[loan]

    @rule(loan=consumes(loans))
    def it_arrived(self, loan: str) -> None:
        self.delivered += sum(value for _, value in self.held[loan])
        self.ledger.settle(loan, delivered=True)
        self.ledger.settle(loan, delivered=True)
        self.store()

    @rule(loan=consumes(loans))
    def it_was_lost(self, loan: str) -> None:
        self.ledger.settle(loan, delivered=False)
        self.store()

    @rule(removed=st.sets(NAMES))
    def users_are_removed(self, removed: set[str]) -> None:
        before = sum(self.owed())
        self.ledger.forget(list(removed), lambda _name: False)
        assert sum(self.owed()) == before
        self.store()

    @rule()
    def node_restarts(self) -> None:
        self.ledger = Ledger()
        self.ledger.restore(self.stored_run, self.stored, self.stored_loans)

    def owed(self) -> list[int]:
        return [entry.owed for name in self.ledger.names() if (entry := self.ledger.get(name)) is not None]

    @invariant()
    def nothing_lost_nothing_twice(self) -> None:
        entries = [entry for name in self.ledger.names() if (entry := self.ledger.get(name)) is not None]
        assert all(entry.free >= 0 and entry.lent >= 0 for entry in entries)
        assert self.delivered + sum(entry.owed for entry in entries) == self.counted
        on_loan = sum(value for loan in self.ledger.loans() for _, value in self.held[loan])
        assert sum(entry.lent for entry in entries) == on_loan


Books.TestCase.settings = settings(stateful_step_count=40)
TestBooks = Books.TestCase
