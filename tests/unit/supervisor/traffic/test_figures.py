"""The ledger and the encoded statistics stay in step, also with many counters."""

from __future__ import annotations

from pgnode.store.changes import Journal
from pgnode.store.rows import LedgerRow, LedgerRun
from pgnode.store.state import StoredState
from pgnode.supervisor.traffic.figures import SLICE, TrafficFigures


def counters(number: int) -> list[tuple[str, int]]:
    return [(f"user>>>u{user}>>>traffic>>>uplink", user + 1) for user in range(number)]


async def test_a_large_reading_is_booked_and_noted() -> None:
    journal = Journal()
    figures = TrafficFigures(journal)
    await figures.count("run", [*counters(SLICE + 7), ("nothing>>>known", 3)])
    assert len(figures.encoded["user"]) == SLICE + 7
    assert f"{SLICE + 8} counters" in repr(figures)
    figures.note()
    assert len(journal.counters) == SLICE + 8
    assert journal.run == LedgerRun(1, "run")
    journal.take()
    figures.note()
    assert not journal
    assert set(await figures.blocks()) == {"stats_users"} or len(await figures.blocks()) == 0


async def test_what_an_earlier_supervisor_stored_is_taken_over() -> None:
    figures = TrafficFigures(Journal())
    rows = {name: LedgerRow(value, 0, value, 4) for name, value in counters(SLICE + 3)}
    stored = StoredState(counters=rows, run=LedgerRun(4, "run"))
    await figures.restore(stored)
    assert len(figures.encoded["user"]) == SLICE + 3
    assert figures.ledger.read("run", [("user>>>u1>>>traffic>>>uplink", 5)]) == ["user>>>u1>>>traffic>>>uplink"]
    entry = figures.ledger.get("user>>>u1>>>traffic>>>uplink")
    assert entry is not None
    assert entry.total == 5
