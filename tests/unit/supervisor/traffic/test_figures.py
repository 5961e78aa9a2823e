"""The ledger and the encoded statistics stay in step, also with many counters."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

from pgnode.store.changes import Journal
from pgnode.store.rows import LedgerRow, LedgerRun
from pgnode.store.state import StoredState
from pgnode.supervisor.traffic.figures import SLICE, TrafficFigures
from tests.support.polling import next_turn


def counters(number: int) -> list[tuple[str, int]]:
    return [(f"user>>>u{user}>>>traffic>>>uplink", user + 1) for user in range(number)]


async def test_a_large_reading_is_booked_and_noted() -> None:
    journal = Journal()
    figures = TrafficFigures(journal)
    await figures.count("run", [*counters(SLICE + 7), ("nothing>>>known", 3)])
    assert len(figures.encoded["user"]) == SLICE + 7
    assert f"{SLICE + 8} counters" in repr(figures)
    await figures.note_all()
    assert len(journal.counters) == SLICE + 8
    assert journal.run == LedgerRun(1, "run")
    journal.take()
    await figures.note_all()
    assert not journal
    assert set(await figures.blocks()) == {"stats_users"} or len(await figures.blocks()) == 0


async def test_many_rows_are_noted_in_parts() -> None:
    """The event loop gets its turn after each, and what moves meanwhile is noted, too."""
    journal = Journal()
    figures = TrafficFigures(journal)
    await figures.count("run", counters(2 * SLICE))
    noting = asyncio.ensure_future(figures.note_all())
    await next_turn()
    assert len(journal.counters) == SLICE
    taken = journal.take()
    assert taken.run == LedgerRun(1, "run"), "a commit in between has what it needs"
    await figures.count("run", [("user>>>late>>>traffic>>>uplink", 1)])
    await noting
    assert len(journal.counters) == SLICE + 1
    assert not journal.counters.keys() & taken.counters.keys()
    await figures.note_all()
    assert len(journal.counters) == SLICE + 1


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


async def published() -> TrafficFigures:
    """Figures that were published once, as at the beginning."""
    figures = TrafficFigures(Journal())
    assert len(await figures.blocks()) == 3
    return figures


async def test_no_snapshot_is_made_of_what_is_being_handed_out() -> None:
    figures = await published()
    await figures.count("run", [*counters(3), ("inbound>>>in>>>traffic>>>uplink", 3)])
    assert not figures.is_holding()
    figures.hold("user", 60)
    assert figures.is_holding()
    assert set(await figures.blocks()) == {"stats.inbounds"}
    assert not figures.news.is_set()
    figures.lend("one", "user", [name for name, _ in counters(3)])
    assert await figures.blocks() == {}
    assert figures.void == {"stats.users"}, "still"
    figures.release("user")
    assert figures.news.is_set()
    assert set(await figures.blocks()) == {"stats.users"}
    assert figures.void == set()
    figures.news.clear()
    figures.release("user")
    assert not figures.news.is_set(), "it was released before"
    figures.hold("user", 60)
    assert not figures.is_holding(), "nothing changed since"


async def test_a_snapshot_that_is_being_made_is_left_when_all_of_it_is_handed_out() -> None:
    figures = await published()
    await figures.count("run", counters(SLICE * 2))
    making = asyncio.ensure_future(figures.blocks())
    await next_turn()
    figures.hold("user", 60)
    assert await making == {}
    assert figures.encoded["user"].changed
    figures.release("user")
    assert set(await figures.blocks()) == {"stats.users"}


async def test_what_is_handed_out_while_a_snapshot_is_made_is_in_none() -> None:
    """It is made again, or not at all where the rest is about to go, too."""
    for held in (False, True):
        figures = await published()
        await figures.count("run", counters(3))
        made, block = list[int](), figures.encoded["user"].block

        def lend_meanwhile(
            figures: TrafficFigures = figures, made: list[int] = made, block: Any = block, held: bool = held
        ) -> Any:
            if not made:
                figures.lend("one", "user", [name for name, _ in counters(3)])
                if held:
                    figures.hold("user", 60)
            made.append(1)
            return block()

        with mock.patch.object(figures.encoded["user"], "block", lend_meanwhile):
            blocks = await figures.blocks()
        assert len(made) == 1 + (not held)
        assert set(blocks) == (set() if held else {"stats.users"})
        assert figures.void == ({"stats.users"} if held else set())


async def test_a_hold_ends_by_itself() -> None:
    figures = await published()
    await figures.count("run", counters(3))
    figures.hold("user", 60)
    figures.hold("user", 0.001)
    await asyncio.wait_for(figures.news.wait(), 10)
    assert set(await figures.blocks()) == {"stats.users"}
