"""When a process that died is brought back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.processes.restart_policy import EXIT_BAD_CONFIG, GIVEN_UP_PAUSES, GiveUp, RestartPolicy, Retry


def test_the_first_death_is_answered_at_once() -> None:
    assert RestartPolicy().died(100.0, 1, 0.9) == Retry(0.0)


def test_a_bad_config_is_given_up_at_once() -> None:
    decision = RestartPolicy().died(0.0, EXIT_BAD_CONFIG, 0.5)
    assert isinstance(decision, GiveUp)
    assert "23" in decision.reason
    assert decision.pause_seconds == GIVEN_UP_PAUSES[0]


def test_tries_after_it_was_given_up_are_single_and_become_rare() -> None:
    policy, now, pauses = RestartPolicy(), 0.0, []
    while isinstance(decision := policy.died(now, 255, 0.5), Retry):
        now += decision.delay_seconds
    assert not decision.again
    for _ in range(6):
        pauses.append(decision.pause_seconds)
        # It starts for as long as that takes, and is up for a moment.
        now += decision.pause_seconds + policy.window_seconds - 1
        decision = policy.died(now, 255, 0.5)
        assert isinstance(decision, GiveUp)
        assert decision.again
    assert pauses == [60, 120, 300, 600, 600, 600]


def test_what_stayed_up_for_a_window_is_as_good_as_new() -> None:
    policy = RestartPolicy()
    decision = policy.died(0.0, EXIT_BAD_CONFIG, 0.5)
    assert isinstance(decision, GiveUp)
    later = decision.pause_seconds + policy.window_seconds
    assert policy.died(later, 255, 0.5) == Retry(0.0)
    decision = policy.died(later, EXIT_BAD_CONFIG, 0.5)
    assert isinstance(decision, GiveUp)
    assert (decision.pause_seconds, decision.again) == (GIVEN_UP_PAUSES[0], False)


def test_pauses_grow_and_end() -> None:
    policy = RestartPolicy(jitter=0.0)
    pauses = []
    while isinstance(decision := policy.died(1.0, 255, 0.5), Retry):
        pauses.append(decision.delay_seconds)
    assert pauses == sorted(pauses)
    assert len(pauses) == policy.max_deaths
    assert max(pauses) <= policy.max_pause_seconds
    assert "times" in decision.reason


def test_deaths_outside_the_window_are_forgotten() -> None:
    policy = RestartPolicy(window_seconds=10)
    for at in range(0, 1000, 11):
        assert policy.died(float(at), 1, 0.5) == Retry(0.0)


def test_a_reset_forgets() -> None:
    policy = RestartPolicy()
    for _ in range(5):
        policy.died(0.0, 1, 0.5)
    policy.reset()
    assert policy.died(0.0, 1, 0.5) == Retry(0.0)
    policy.died(0.0, EXIT_BAD_CONFIG, 0.5)
    policy.reset()
    assert policy.died(0.0, 1, 0.5) == Retry(0.0)


@given(
    st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=40),
    st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_never_more_restarts_in_a_window_than_allowed(gaps: list[float], chance: float) -> None:
    policy = RestartPolicy(max_deaths=8)
    now, restarts = 0.0, []
    for gap in gaps:
        now += gap
        decision = policy.died(now, None, chance)
        if isinstance(decision, Retry):
            assert 0 <= decision.delay_seconds <= policy.max_pause_seconds * (1 + policy.jitter)
            restarts.append(now)
        recent = [at for at in restarts if now - at < policy.window_seconds]
        assert len(recent) <= 8


def test_without_a_number_of_deaths_nothing_is_given_up() -> None:
    policy = RestartPolicy(max_deaths=None, jitter=0.0)
    pauses = [decision.delay_seconds for _ in range(2000) if isinstance(decision := policy.died(1.0, 1, 0.5), Retry)]
    assert len(pauses) == 2000
    assert pauses[-1] == policy.max_pause_seconds
