"""What was counted is stored now and then, and at once when it has to be."""

from __future__ import annotations

from pgnode.store.changes import Journal
from pgnode.supervisor.traffic.figures import TrafficFigures
from pgnode.supervisor.traffic.storing import TrafficStoring


async def test_it_is_stored_when_it_is_due() -> None:
    journal, commits = Journal(), list[int]()
    figures = TrafficFigures(journal)

    async def commit() -> None:
        commits.append(len(journal.take().counters))

    storing = TrafficStoring(figures, commit)
    await figures.count("run", [("user>>>a>>>traffic>>>uplink", 1)])
    await storing.store_if_due()
    assert commits == [1]
    await figures.count("run", [("user>>>a>>>traffic>>>uplink", 2)])
    await storing.store_if_due()
    assert commits == [1], "not so soon"
    await storing.store_now()
    assert commits == [1, 1]
    often = TrafficStoring(figures, commit, store_seconds=0.0)
    await often.store_if_due()
    await often.store_if_due()
    assert commits == [1, 1, 0, 0]
    assert "0 s" in repr(often)
