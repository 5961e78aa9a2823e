"""What moved between two readings, for who looks."""

from __future__ import annotations

from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.traffic_watch import BytesMoved, TrafficWatch

UP = "user>>>a>>>traffic>>>uplink"


class Stage:
    """A ledger that is watched."""

    def __init__(self) -> None:
        self.now = 100.0
        self.watch = TrafficWatch(lambda: self.now, kept_seconds=30)
        self.ledger = Ledger(self.watch)
        self.value = 0

    def reading(self, moved: int, seconds: float | None = 5.0) -> None:
        self.value += moved
        self.ledger.read("1", [(UP, self.value)])
        self.watch.reading_done(seconds)


def test_nothing_is_kept_while_nobody_looks() -> None:
    stage = Stage()
    stage.reading(10)
    assert (stage.watch.counts, repr(stage.watch)) == (None, "TrafficWatch(off)")
    assert stage.watch.look() == BytesMoved()


def test_who_looks_gets_the_last_interval() -> None:
    stage = Stage()
    stage.watch.look()
    stage.reading(10, None)
    assert stage.watch.look() == BytesMoved(), "since when is not known"
    stage.reading(20)
    stage.ledger.read("1", [(UP, stage.value + 1)])
    assert repr(stage.watch) == "TrafficWatch(1 counters)"
    for _ in range(2):
        assert stage.watch.look() == BytesMoved(1, 5.0, {UP: 20}), "for anybody, and as often as asked for"
    stage.reading(5, 2.0)
    assert stage.watch.look() == BytesMoved(2, 2.0, {UP: 5})
    stage.reading(0)
    assert stage.watch.look() == BytesMoved(3, 5.0, {})


def test_it_ends_some_time_after_the_last_look() -> None:
    stage = Stage()
    stage.watch.look()
    stage.reading(10)
    stage.now = 130.0
    stage.reading(10)
    assert stage.watch.counts is None
    assert stage.watch.look() == BytesMoved(1), "a new reading has another number"
    stage.reading(3)
    assert stage.watch.look() == BytesMoved(2, 5.0, {UP: 3})
