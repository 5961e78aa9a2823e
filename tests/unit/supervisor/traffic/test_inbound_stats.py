"""Who decides whether inbounds are counted."""

from __future__ import annotations

import pytest

from pgnode.store.changes import Journal
from pgnode.supervisor.traffic.inbound_stats import WAITING, Choice, InboundStats
from pgnode.xray.config.inbound_counters import InboundCounting
from tests.unit.xray.config.test_inbound_counters import base

SILENT = base()
REFUSING = base(statsInboundUplink=False, statsInboundDownlink=False)


def test_somebody_who_asks_decides_for_the_next_core_and_for_good() -> None:
    journal = Journal()
    stats = InboundStats("auto", journal)
    assert stats.counting is InboundCounting.AS_CONFIGURED
    stats.counted = False
    assert stats.waiting(SILENT) == ""
    assert stats.ask()
    assert not stats.ask(), "no news"
    assert journal.meta == {"inbounds_asked": 1}
    assert (stats.counting, stats.waiting(SILENT)) == (InboundCounting.WHERE_SILENT, WAITING)
    stats.counted = True
    assert stats.waiting(SILENT) == ""
    stats.counted = False
    assert stats.waiting(REFUSING) == "", "the next core does not count them either"
    assert stats.waiting(None) == ""
    later = InboundStats("auto", Journal())
    later.restore(asked=True)
    assert later.counting is InboundCounting.WHERE_SILENT
    assert repr(later) == "InboundStats(auto, asked for, counted: None)"


@pytest.mark.parametrize(("choice", "counting"), [("on", InboundCounting.ALWAYS), ("off", InboundCounting.NEVER)])
def test_an_operator_has_the_last_word(choice: Choice, counting: InboundCounting) -> None:
    journal = Journal()
    stats = InboundStats(choice, journal)
    assert not stats.ask()
    assert (stats.counting, journal.meta) == (counting, {})
    stats.counted = False
    assert stats.waiting(SILENT) == (WAITING if choice == "on" else "")


def test_a_core_that_counts_already_waits_for_nothing() -> None:
    stats = InboundStats("auto", Journal())
    stats.counted = True
    assert stats.ask(), "it is remembered for the next core"
    assert stats.waiting(SILENT) == ""
