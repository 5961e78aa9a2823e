"""No sum falls, whatever becomes of workers and their reports."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgnode.bus.reports import Report
from pgnode.supervisor.figures.worker_sums import GONE_SECONDS, NAMES_MAX, WorkerSums

CALL = "calls/rest/GetStats/OK"
TIMES = "times/rest/read"


def report(
    number: int, calls: float = 0, *, kind: str = "rest", last: bool = False, idle: float | None = None
) -> Report:
    return Report(number, kind, {CALL: calls}, {TIMES: [calls, calls / 2]}, idle_seconds=idle, last=last)


def began(**options: int) -> WorkerSums:
    """Sums that have seen an empty bus."""
    workers = WorkerSums(**options)
    workers.take({}, 0)
    return workers


def test_workers_are_added_up() -> None:
    workers = began()
    workers.take({"a": report(1, 10), "b": report(1, 5)}, 1)
    workers.take({"a": report(2, 12), "b": report(2, 5)}, 2)
    assert workers.sums.counts == {CALL: 17}
    assert workers.sums.times == {TIMES: [17, 8.5]}
    assert len(workers.alive) == 2
    assert repr(workers) == "WorkerSums(2 alive, 0 gone)"


def test_what_comes_twice_or_late_adds_nothing() -> None:
    workers = began()
    workers.take({"a": report(5, 10)}, 1)
    for number, calls in ((5, 10), (4, 8), (5, 99)):
        workers.take({"a": report(number, calls)}, 2)
    assert workers.sums.counts == {CALL: 10}


def test_the_first_look_counts_from_where_workers_are() -> None:
    """A supervisor that takes workers over begins at zero, as whoever reads counters expects of a new beginning."""
    workers = WorkerSums()
    workers.take({"a": report(100, 1000), "dead": report(7, 50)}, 0)
    assert workers.sums.counts == {}
    assert workers.alive == []
    workers.take({"a": report(101, 1003), "dead": report(7, 50)}, 1)
    assert workers.sums.counts == {CALL: 3}
    assert len(workers.alive) == 1
    ended = workers.take({"a": report(102, 1003), "dead": report(7, 50)}, GONE_SECONDS)
    assert ended == ["dead"]
    assert workers.sums.gone.total() == 0, "it died under an earlier supervisor"


def test_a_worker_that_dies_is_counted_and_its_counts_stay() -> None:
    workers = began()
    workers.take({"a": report(1, 10)}, 1)
    assert workers.take({"a": report(1, 10)}, 1 + GONE_SECONDS / 2) == []
    assert workers.take({"a": report(1, 10)}, 1 + GONE_SECONDS) == ["a"]
    workers.take({}, 20)
    assert workers.sums.counts == {CALL: 10}
    assert workers.sums.gone == Counter({("rest", "died"): 1})
    assert workers.alive == []


def test_one_that_only_stood_still_goes_on() -> None:
    workers = began()
    workers.take({"a": report(1, 10)}, 1)
    workers.take({}, 100)
    workers.take({"a": report(2, 11)}, 101)
    assert workers.sums.counts == {CALL: 11}
    assert len(workers.alive) == 1
    assert workers.sums.gone["rest", "died"] == 1


def test_one_that_ends_in_order_says_so() -> None:
    workers = began()
    workers.take({"a": report(1, 10)}, 1)
    assert workers.take({"a": report(2, 12, last=True)}, 2) == ["a"]
    assert workers.take({"a": report(2, 12, last=True)}, 3) == ["a"], "until it is no more on the bus"
    assert workers.sums.counts == {CALL: 12}
    assert workers.sums.gone == Counter({("rest", "ended"): 1})


def test_a_bus_that_was_emptied_changes_nothing() -> None:
    workers = began()
    workers.take({"a": report(1, 10)}, 1)
    workers.take({}, 2)
    workers.take({"a": report(3, 12)}, 3)
    assert workers.sums.counts == {CALL: 12}


def test_the_last_call_is_the_latest_of_all() -> None:
    quiet, workers = began(), began()
    quiet.take({"a": report(1)}, 1)
    assert quiet.last_call_at is None
    workers.take({"a": report(2, idle=3), "b": report(1, idle=30)}, 100)
    assert workers.last_call_at == 97
    workers.take({"b": report(2, idle=40)}, 110)
    assert workers.last_call_at == 97, "also when who was called is no more"


def test_neither_workers_nor_names_are_kept_without_end() -> None:
    workers = began(gone_kept=3)
    for number in range(20):
        workers.take({f"worker {number}": report(1, 1, last=True)}, number)
    assert repr(workers) == "WorkerSums(0 alive, 3 gone)"
    invented = {f"calls/rest/{number}/OK": 1.0 for number in range(2 * NAMES_MAX)}
    workers.take({"odd": Report(1, "rest", invented)}, 100)
    assert len(workers.sums.counts) == NAMES_MAX


def test_histograms_of_another_length_are_cut() -> None:
    workers = began()
    workers.take({"a": Report(1, "rest", times={TIMES: [1, 2]}), "b": Report(1, "rest", times={TIMES: [1, 2, 3]})}, 1)
    assert workers.sums.times == {TIMES: [2, 4]}


class Workers(RuleBasedStateMachine):
    """Workers that count, report, die and are replaced, on a bus that loses reports and brings old ones again."""

    @initialize()
    def begin(self) -> None:
        self.workers = began()
        self.now = 0.0
        self.names = 0
        #: Worker -> (number of its last report, what it counted); what was reported of it, and what of that was seen.
        self.living: dict[str, tuple[int, int]] = {}
        self.bus: dict[str, Report] = {}
        self.old: list[tuple[str, Report]] = []
        self.seen: Counter[str] = Counter()
        self.before = 0.0

    @rule()
    def start(self) -> None:
        self.names += 1
        self.living[f"worker {self.names}"] = (0, 0)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), calls=st.integers(0, 100))
    def count_and_report(self, data: st.DataObject, calls: int) -> None:
        worker = data.draw(st.sampled_from(sorted(self.living)))
        number, counted = self.living[worker]
        self.living[worker] = (number + 1, counted + calls)
        self.bus[worker] = report(number + 1, counted + calls)
        self.old.append((worker, self.bus[worker]))

    @precondition(lambda self: self.living)
    @rule(data=st.data(), in_order=st.booleans())
    def end(self, data: st.DataObject, in_order: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.living)))
        number, counted = self.living.pop(worker)
        if in_order:
            self.bus[worker] = report(number + 1, counted, last=True)

    @rule()
    def lose_all(self) -> None:
        self.bus.clear()

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def bring_an_old_one_again(self, data: st.DataObject) -> None:
        worker, again = data.draw(st.sampled_from(self.old))
        self.bus[worker] = again

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 11.0, 100.0]))
    def take(self, seconds: float) -> None:
        self.now += seconds
        for worker, there in self.bus.items():
            self.seen[worker] = max(self.seen[worker], int(there.counts[CALL]))
        for worker in self.workers.take(self.bus, self.now):
            del self.bus[worker]

    @invariant()
    def nothing_falls_and_nothing_is_counted_twice(self) -> None:
        if not hasattr(self, "workers"):
            return
        summed = self.workers.sums.counts.get(CALL, 0)
        assert summed >= self.before
        assert summed == self.seen.total()
        assert self.workers.sums.times.get(TIMES, [0, 0]) == [summed, summed / 2]
        self.before = summed


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
