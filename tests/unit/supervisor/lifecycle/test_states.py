"""The table of the node's life."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.lifecycle.states import TABLE, State, TransitionError, Trigger, mermaid, next_state


@pytest.mark.parametrize(("state", "event"), [(s, e) for s in State for e in Trigger if (s, e) not in TABLE])
def test_unlisted_is_an_error_that_names_both(state: State, event: Trigger) -> None:
    with pytest.raises(TransitionError) as caught:
        next_state(state, event)
    assert f"'{state}'" in str(caught.value)
    assert f"'{event}'" in str(caught.value)


def test_every_state_is_reached_and_left() -> None:
    assert set(TABLE.values()) | {State.RESTORING} == set(State)
    assert {state for state, _ in TABLE} == set(State)


@given(st.lists(st.sampled_from(Trigger)))
def test_a_stop_leads_to_idle_from_anywhere(events: list[Trigger]) -> None:
    state = State.IDLE
    for event in events:
        state = TABLE.get((state, event), state)
    if state is not State.STOPPING:
        state = next_state(state, Trigger.STOP_REQUESTED)
    if state is State.LINGERING:
        state = next_state(state, Trigger.LINGER_ENDED)
    if state is not State.IDLE:
        state = next_state(state, Trigger.CORE_STOPPED)
    assert state is State.IDLE


def test_a_failed_node_is_cleared_by_a_start() -> None:
    assert next_state(State.FAILED, Trigger.START_REQUESTED) is State.STARTING


def test_the_diagram_has_every_transition() -> None:
    assert mermaid().count(" --> ") == len(TABLE) + 1
