"""Sums that are always what the ledger's counters add up to."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.traffic_sums import TrafficSums

NAMES = [
    f"{kind}>>>{name}>>>traffic>>>{direction}"
    for kind, name in (
        ("user", "a"),
        ("user", "inbound"),
        ("inbound", "x"),
        ("inbound", "y>>>traffic"),
        ("outbound", "x"),
    )
    for direction in ("uplink", "downlink")
]
READINGS = st.lists(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 1000))), max_size=6)


def added_up(ledger: Ledger, value: str) -> Counter[str]:
    """By kind; kinds with nothing are left out."""
    sums: Counter[str] = Counter()
    for name in ledger.names():
        entry = ledger.get(name)
        assert entry is not None
        sums[name.partition(">>>")[0]] += getattr(entry, value)
    return +sums


@given(readings=READINGS, delivered=st.booleans(), write_off=st.booleans())
def test_they_are_what_the_books_say(readings: list[list[tuple[str, int]]], delivered: bool, write_off: bool) -> None:
    ledger = Ledger()
    for number, reading in enumerate(readings):
        ledger.read(str(number // 2), reading)
        for kind in ("user", "inbound"):
            ledger.lend(f"{kind} {number}", [name for name in NAMES if name.startswith(kind)])
        if number % 2:
            ledger.settle(f"user {number}", delivered=delivered)
    if write_off:
        ledger.write_off()
    assert +ledger.sums.owed == added_up(ledger, "owed")
    assert +ledger.sums.lent == added_up(ledger, "lent")
    assert sum(ledger.sums.users.values()) == added_up(ledger, "total")["user"]
    tagged = Counter[str]()
    for (kind, _, _), moved in ledger.sums.tags.items():
        tagged[kind] += moved
    assert +tagged == added_up(ledger, "total") - Counter(user=added_up(ledger, "total")["user"])
    again = Ledger()
    rows = {name: row for name, row in ledger.take_unstored().items() if row is not None}
    again.restore(ledger.last_run, rows, {})
    assert +again.sums.owed == +ledger.sums.owed
    assert again.sums.users == {"uplink": 0, "downlink": 0}, "counted from the start of the supervisor"


def test_loans_that_were_stored_are_on_loan() -> None:
    ledger = Ledger()
    ledger.read("1", [(NAMES[0], 10)])
    ledger.lend("loan", [NAMES[0]])
    again = Ledger()
    rows = {name: row for name, row in ledger.take_unstored().items() if row is not None}
    again.restore(None, rows, {"loan": [(NAMES[0], 10)]})
    assert (again.sums.owed["user"], again.sums.lent["user"]) == (10, 10)
    again.settle("loan", delivered=True)
    assert (again.sums.owed["user"], again.sums.lent["user"]) == (0, 0)


def test_tags_are_told_up_to_a_number_and_no_series_falls() -> None:
    sums = TrafficSums(tags_max=2)
    for tag in ("a", "b", "c", "other", "d", "a", "c"):
        before = dict(sums.tags)
        sums.tag_moved(f"inbound>>>{tag}>>>traffic>>>uplink", 1)
        assert all(sums.tags[labels] >= moved for labels, moved in before.items())
    assert sums.tags == {
        ("inbound", "a", "uplink"): 2,
        ("inbound", "b", "uplink"): 1,
        ("inbound", "other", "uplink"): 4,
    }


def test_counters_with_other_names_are_only_owed() -> None:
    sums = TrafficSums()
    for name in ("inbound>>>a", "inbound>>>a>>>traffic>>>sidewards", "moon>>>a>>>traffic>>>uplink"):
        sums.tag_moved(name, 1)
    assert not sums.tags
    assert sums.owed == {"inbound": 2, "moon": 1}
    assert repr(sums).startswith("TrafficSums(")
