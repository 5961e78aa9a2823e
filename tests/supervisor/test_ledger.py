"""The books: what was delivered plus what is owed is what was counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pgnode.supervisor.ledger import Ledger

NAMES = st.sampled_from(
    ["user>>>a>>>traffic>>>uplink", "user>>>a>>>traffic>>>downlink", "inbound>>>x>>>traffic>>>uplink"]
)


def test_a_counter_that_goes_down_is_a_new_one() -> None:
    ledger = Ledger()
    ledger.read("1", [("user>>>a>>>traffic>>>uplink", 100)])
    ledger.read("1", [("user>>>a>>>traffic>>>uplink", 30)])
    entry = ledger.get("user>>>a>>>traffic>>>uplink")
    assert entry is not None
    assert entry.total == 130


def test_a_new_core_starts_from_zero_also_when_it_counts_more() -> None:
    ledger = Ledger()
    ledger.read("1", [("user>>>a>>>traffic>>>uplink", 100)])
    ledger.read("2", [("user>>>a>>>traffic>>>uplink", 150)])
    entry = ledger.get("user>>>a>>>traffic>>>uplink")
    assert entry is not None
    assert entry.total == 250


def test_reading_again_changes_nothing() -> None:
    ledger = Ledger()
    assert ledger.read("1", [("user>>>a>>>traffic>>>uplink", 7)]) == {"user>>>a>>>traffic>>>uplink"}
    assert ledger.read("1", [("user>>>a>>>traffic>>>uplink", 7)]) == set()


@given(st.dictionaries(st.text(min_size=4), st.integers(min_value=0, max_value=2**60)))
def test_what_is_stored_comes_back(counters: dict[str, int]) -> None:
    ledger = Ledger()
    ledger.read("3", counters.items())
    ledger.take(list(counters)[::2])
    again = Ledger()
    again.restore(ledger.take_unstored())
    again.read("3", counters.items())
    for name in counters:
        assert again.get(name) == ledger.get(name)


class Books(RuleBasedStateMachine):
    """A core that counts, dies and is read; callers who take, and whose replies are lost; nodes that restart."""

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger()
        self.stored: dict[str, str] = {}
        self.run_number = 1
        self.core: dict[str, int] = {}
        self.read_so_far: dict[str, int] = {}
        self.counted = 0
        self.delivered = 0

    @rule(name=NAMES, count=st.integers(min_value=0, max_value=10**9))
    def traffic(self, name: str, count: int) -> None:
        self.core[name] = self.core.get(name, 0) + count

    @rule()
    def poll(self) -> None:
        self.ledger.read(str(self.run_number), self.core.items())
        self.counted += sum(value - self.read_so_far.get(name, 0) for name, value in self.core.items())
        self.read_so_far = dict(self.core)
        self.stored.update(self.ledger.take_unstored())

    @rule()
    def core_dies(self) -> None:
        self.core, self.read_so_far = {}, {}
        self.run_number += 1

    @rule()
    def take(self) -> None:
        self.delivered += sum(value for _, value in self.ledger.take(list(self.ledger.names())))
        self.stored.update(self.ledger.take_unstored())

    @rule()
    def take_and_lose(self) -> None:
        self.ledger.give_back(self.ledger.take(list(self.ledger.names())))

    @rule()
    def node_restarts(self) -> None:
        self.stored.update(self.ledger.take_unstored())
        self.ledger = Ledger()
        self.ledger.restore(self.stored)

    @invariant()
    def nothing_lost_nothing_twice(self) -> None:
        entries = [self.ledger.get(name) for name in self.ledger.names()]
        owed = [entry.owed for entry in entries if entry is not None]
        assert all(value >= 0 for value in owed)
        assert self.delivered + sum(owed) == self.counted


TestBooks = Books.TestCase
