"""When the panel's silence counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.lifecycle.panel_watch import Silence, Verdict


def test_silence_beyond_the_limit_is_told_once_and_so_is_the_return() -> None:
    silence = Silence()
    looks = [(0, 1), (5, 1), (10, 1), (11, 1), (12, 1), (13, 2), (14, 2)]
    verdicts = [silence.look(now, 10, seen) for now, seen in looks]
    away, back = Verdict.WENT_AWAY, Verdict.CAME_BACK
    quiet = Verdict.NOTHING_NEW
    assert verdicts == [quiet, quiet, quiet, away, quiet, back, quiet]


def test_without_a_limit_nobody_is_missed() -> None:
    silence = Silence()
    assert {silence.look(now, 0, None) for now in range(0, 1000, 7)} == {Verdict.NOTHING_NEW}


def test_a_start_with_another_limit_is_a_call() -> None:
    silence = Silence()
    silence.look(0, 10, 1)
    assert silence.look(60, 30, 1) is Verdict.NOTHING_NEW
    assert silence.look(80, 30, 1) is Verdict.NOTHING_NEW
    assert silence.look(91, 30, 1) is Verdict.WENT_AWAY


def test_time_without_a_store_is_not_the_panels_silence() -> None:
    silence = Silence()
    silence.look(0, 10, 1)
    silence.unknown(100)
    assert silence.look(105, 10, 1) is Verdict.NOTHING_NEW
    assert silence.look(111, 10, 1) is Verdict.WENT_AWAY


def test_a_stop_ends_the_waiting() -> None:
    silence = Silence()
    silence.look(0, 10, 1)
    silence.look(11, 10, 1)
    assert silence.look(12, 0, None) is Verdict.CAME_BACK


@given(st.lists(st.tuples(st.floats(min_value=0, max_value=20), st.booleans()), max_size=40))
def test_away_means_silent_for_longer_than_the_limit(steps: list[tuple[float, bool]]) -> None:
    silence = Silence()
    now, called_at, counter = 0.0, 0.0, 0
    silence.look(now, 10, counter)
    for pause, called in steps:
        now += pause
        if called:
            counter, called_at = counter + 1, now
        silence.look(now, 10, counter)
        assert silence.away is (now - called_at > 10)
