"""Whether a group waits for others, and how long."""

from __future__ import annotations

import pytest

from pgnode.supervisor.commands.together import ENOUGH, PROCESSORS_MAX, VAIN_MAX, VAIN_PAUSE, Patience, Together

PATIENCE = Patience()


def _in_turns(processors: float = PROCESSORS_MAX) -> Together:
    """Two groups of 16 were answered, 5 ms apart, the last one at 10.005."""
    together = Together(processors)
    together.answered(16, 10.0)
    together.answered(16, 10.005)
    return together


def test_three_quarters_of_those_who_were_just_answered_are_waited_for() -> None:
    together = _in_turns()
    assert together.expected(16, 0, 10.006) == 12
    assert together.expected(16, 6, 10.006) == 6, "some are among those who wait"
    assert repr(together) == "Together(16 answered last, 0 waits in vain)"


@pytest.mark.parametrize(
    ("waiting", "since", "now"),
    [
        pytest.param(16, 12, 10.006, id="nearly all have come again"),
        pytest.param(16, 16, 10.006, id="all have come again"),
        pytest.param(16, 0, 10.006 + PATIENCE.recent_seconds, id="that was long ago"),
    ],
)
def test_otherwise_a_group_is_begun_at_once(waiting: int, since: int, now: float) -> None:
    assert _in_turns().expected(waiting, since, now) == 0


def test_two_who_take_turns_come_to_go_together() -> None:
    together = Together(PROCESSORS_MAX)
    together.answered(1, 10.0)
    assert together.expected(1, 0, 10.001) == 1
    together.answered(2, 10.002)
    assert together.expected(1, 1, 10.003) == 1
    together.answered(1, 10.004)
    assert together.expected(1, 1, 10.005) == 0, "it has come again, and was alone"


def test_so_many_wait_for_nobody() -> None:
    together = _in_turns()
    together.answered(4 * ENOUGH, 10.006)
    assert together.expected(ENOUGH - 1, 0, 10.007) == 3 * ENOUGH
    assert together.expected(ENOUGH, 0, 10.007) == 0


def test_with_many_processors_or_before_any_answer_nobody_waits() -> None:
    assert _in_turns(PROCESSORS_MAX + 1).expected(16, 0, 10.006) == 0
    assert Together(1).expected(16, 0, 10.006) == 0


def test_the_wait_is_as_long_as_two_turns_within_limits() -> None:
    together = _in_turns()
    assert together.patience_seconds(12) == pytest.approx(0.01)
    assert together.patience_seconds(2) == pytest.approx(2 * PATIENCE.each_seconds)
    together.answered(500, 70.0)
    assert together.patience_seconds(400) == PATIENCE.most_seconds
    together.answered(500, 70.0)
    assert together.patience_seconds(400) == 0


def test_where_nobody_comes_groups_stop_waiting_for_a_while() -> None:
    together = _in_turns()
    for _ in range(VAIN_MAX - 1):
        together.waited(0)
    together.waited(5)
    assert together.expected(16, 0, 10.006) == 12, "somebody came in between"
    for _ in range(VAIN_MAX):
        together.waited(0)
    assert [together.expected(16, 0, 10.006) for _ in range(VAIN_PAUSE + 1)] == [0] * VAIN_PAUSE + [12]
