"""What the machine knows, and the moves that its tasks share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgnode.supervisor.lifecycle.actions import (
    CancelTimer,
    CompleteCore,
    EndCore,
    GiveUp,
    Record,
    RetryLater,
    StartCore,
)
from pgnode.supervisor.lifecycle.events import Done, Moment
from pgnode.supervisor.lifecycle.life import Life, cancel_timer, core_gone, core_started, forgive, recover, unexpected
from pgnode.supervisor.lifecycle.states import State, TransitionError, Trigger
from tests.unit.supervisor.lifecycle.scripts import AT, FAILED, IDLE, LINGERING, RUNNING, A, B


def test_a_life_never_changes() -> None:
    life = IDLE.move(Trigger.START_REQUESTED).desire(A)
    assert (life.state, life.desired, life.decisions) == (State.STARTING, A, 1)
    assert Life(State.IDLE) == IDLE
    with pytest.raises(TransitionError):
        IDLE.move(Trigger.CORE_READY)


def test_what_the_store_has_to_know() -> None:
    assert RUNNING.record == Record(A, 1)


def test_who_needs_a_core() -> None:
    assert [life.needs_core for life in (IDLE, RUNNING, LINGERING, FAILED)] == [False, True, False, False]
    assert [life.wants_core for life in (IDLE, RUNNING, LINGERING, FAILED)] == [False, True, False, True]


def test_a_timer_is_cancelled_where_there_is_one() -> None:
    assert cancel_timer(RUNNING) == (RUNNING, ())
    assert cancel_timer(LINGERING) == (replace(LINGERING, timer=False), (CancelTimer(),))


def test_a_new_core_is_counted_and_forgiven_its_silence() -> None:
    life, complete = core_started(replace(RUNNING, api_error="deadline"), StartCore(B))
    assert (life.core, life.core_run, life.api_error, complete) == (B, 2, "", CompleteCore(B))
    assert core_gone(life).core is None


def test_deaths_are_counted_until_they_are_forgiven() -> None:
    life, actions = recover(RUNNING, 255, "died", AT)
    assert actions == (RetryLater(0.0, "died"),)
    life, actions = recover(life, 255, "died", Moment(AT.now + 1, 0.5))
    assert actions == (RetryLater(0.5, "died"),)
    life, actions = recover(forgive(life), 255, "died", Moment(AT.now + 2, 0.5))
    assert actions == (RetryLater(0.0, "died"),)
    life, actions = recover(life, 23, "died", Moment(AT.now + 3, 0.5))
    assert (life.state, life.timer, life.given_up, life.next_try_at) == (State.FAILED, True, 1, AT.now + 63)
    assert actions == (GiveUp(60.0, "died", "exit code 23 means that it refuses its config"),)


def test_the_error_of_an_outcome_names_it() -> None:
    assert "EndCore" in str(unexpected(RUNNING, Done(EndCore())))
