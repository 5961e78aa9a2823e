"""What is counted of calls, and what that costs."""

from __future__ import annotations

import time
import timeit

from pgnode.metrics.meter import CANCELLED, OK, FaceMeter, Meter

#: What a call may cost at most; seconds. The aim is a microsecond on a machine with nothing else to do.
COST_SECONDS = 20e-6


class Now:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_calls_are_counted_by_method_and_code() -> None:
    now = Now()
    face = FaceMeter(now)
    read = face.line("GetStats", "read")
    for code in (OK, OK, "NOT_FOUND"):
        begun = face.begin("current")
        assert face.in_flight == 1
        now.seconds += 0.004
        face.end(read, code, begun)
    assert face.in_flight == 0
    assert face.calls == {"GetStats": {OK: 2, "NOT_FOUND": 1}}
    [(group, buckets)] = face.times.items()
    assert (group, sum(buckets[:-1]), round(buckets[-1], 3)) == ("read", 3, 0.012)
    assert dict(face.key_uses) == {"current": 3}


def test_lines_of_one_method_are_told_together_and_groups_share_a_histogram() -> None:
    face = FaceMeter(Now())
    assert face.line("a", "read") is face.line("a", "read")
    for line in (face.line("a", "read"), face.line("a", "take"), face.line("b", "read")):
        face.end(line, OK, face.begin("current"))
    assert face.calls == {"a": {OK: 2}, "b": {OK: 1}}
    assert {group: sum(buckets[:-1]) for group, buckets in face.times.items()} == {"read": 2, "take": 1}


def test_what_has_no_group_is_not_timed_and_what_was_not_called_not_told() -> None:
    face = FaceMeter(Now())
    face.line("never", "change")
    face.end(face.line("GetLogs", ""), CANCELLED, face.begin("current"))
    face.end(face.other, "NOT_FOUND", face.begin("metrics"))
    face.refused()
    assert face.times == {}
    assert face.calls == {"GetLogs": {CANCELLED: 1}, "other": {"NOT_FOUND": 1}}
    assert face.unauthenticated == 1
    assert repr(face) == "FaceMeter(0 under way)"


def test_faces_are_kept_apart() -> None:
    meter = Meter(Now())
    assert meter.face("rest") is meter.face("rest")
    meter.face("grpc").refused()
    assert {name: face.unauthenticated for name, face in meter.faces.items()} == {"rest": 0, "grpc": 1}
    assert repr(meter) == "Meter(rest, grpc)"


def test_a_call_costs_next_to_nothing() -> None:
    """A limit that only a mistake exceeds; bench tells the real number."""
    face = FaceMeter(time.perf_counter)
    line = face.line("GetBaseInfo", "read")
    took = min(timeit.repeat(lambda: face.end(line, OK, face.begin("current")), number=2_000, repeat=5)) / 2_000
    assert took < COST_SECONDS
