"""Whether anybody watches the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.log_batches import Watch
from pgnode.supervisor.core.log_demand import LogDemand

LEASE = 10.0

#: Seconds until a worker says something, which one, and whether it watches.
SAID = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 4.0, 11.0]), st.sampled_from("ab"), st.booleans()), max_size=20)


def made(now: float = 0.0) -> LogDemand:
    return LogDemand(now, LEASE)


@given(SAID, st.floats(0, 12))
def test_who_said_so_last_and_not_long_ago_watches(said: list[tuple[float, str, bool]], later: float) -> None:
    demand, now = made(), 0.0
    last: dict[str, tuple[float, bool]] = {}
    for number, (seconds, worker, on) in enumerate(said):
        now += seconds
        assert demand.said(worker, Watch(number, on), now)
        last[worker] = now, on
    now += later
    assert demand.watched(now) is any(on and now < at + LEASE for at, on in last.values())


def test_what_was_said_before_something_else_counts_for_nothing() -> None:
    demand = made()
    assert demand.said("a", Watch(2, on=False), 1.0)
    assert not demand.said("a", Watch(1, on=True), 2.0), "it came late"
    assert not demand.watched(2.0)
    assert demand.said("a", Watch(3, on=True), 2.0)
    assert demand.watched(2.0)
    assert repr(demand) == "LogDemand(1 workers)"


def test_a_supervisor_that_has_just_begun_does_not_know_who_watches() -> None:
    demand = made(100.0)
    assert (demand.unknown(109.9), demand.unknown(110.1)) == (True, False)
    assert not demand.watched(105.0)


def test_nobody_goes_while_nobody_can_say_anything() -> None:
    demand = made()
    demand.said("a", Watch(1, on=True), 1.0)
    demand.said("b", Watch(1, on=False), 1.0)
    demand.not_heard(9.0)
    assert (demand.watched(18.9), demand.watched(19.1)) == (True, False)
    assert demand.unknown(18.9)
    demand.not_heard(30.0)
    assert not demand.watched(30.1), "it had gone before"


def test_workers_that_have_gone_are_forgotten() -> None:
    demand = made()
    for number in range(50):
        demand.said(f"worker {number}", Watch(1, on=True), float(number))
    demand.said("last", Watch(1, on=True), 200.0)
    assert repr(demand) == "LogDemand(1 workers)"
