"""Restarts of the supervisor, and maintenance, as scripts: one for every way and every fallback."""

from __future__ import annotations

import pytest

from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle import events as on
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
    CancelTimer,
    Commit,
    EndCore,
    LearnVersion,
    Publish,
    ReapCore,
    Record,
    RetryLater,
)
from pgnode.supervisor.lifecycle.events import Event, Found
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.lifecycle.states import State
from tests.unit.supervisor.lifecycle.scripts import (
    AT,
    BEGUN,
    FAILED,
    IDLE,
    LINGERING,
    NEW,
    RECOVERING,
    RUNNING,
    SAME,
    A,
    B,
    Equal,
    Script,
    done,
    failed,
    found,
    script_of,
    told,
)

# --- maintenance -----------------------------------------------------------------------------------------------------


def test_the_core_is_exchanged() -> None:
    with exchanging(RUNNING) as script:
        script >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << LearnVersion() << Record(A, 2) << Commit() << Publish() << Answer()
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


def exchanging(life: Life) -> Script:
    """Up to where the change is made."""
    return script_of(life) >> on.ExchangeRequested() << Publish() << EndCore() >> done << do.MakeChange()


def test_the_previous_core_is_restored_when_the_other_one_does_not_come_up() -> None:
    with exchanging(RUNNING) as script:
        script >> done << do.StartCore(A) >> failed("exit code 1") << do.UndoChange() >> done << do.StartCore(A)
        script >> done << do.CompleteCore(A)
        script >> done << LearnVersion() << Record(A, 2) << Commit() << Publish()
        script << told("exit code 1; the previous core was restored")
    assert script.state.state is State.RUNNING


def test_a_change_that_cannot_be_made_is_taken_back() -> None:
    with exchanging(RUNNING) as script:
        script >> failed("read-only folder") << do.UndoChange() >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << LearnVersion() << Record(A, 2) << Commit() << Publish()
        script << told("read-only folder; the previous core was restored")


def test_neither_the_other_core_nor_the_previous_one_comes_up() -> None:
    with exchanging(RUNNING) as script:
        script >> done << do.StartCore(A) >> failed("exit code 1") << do.UndoChange() >> done << do.StartCore(A)
        script >> failed("no memory") << RetryLater(0.0, "no memory") << LearnVersion() << Commit() << Publish()
        script << told("exit code 1; the previous core did not come up either: no memory")
    assert (script.state.state, script.state.desired) == (State.RECOVERING, A)


@pytest.mark.parametrize("comes_up", [True, False])
def test_a_change_that_cannot_be_taken_back_is_told(*, comes_up: bool) -> None:
    why = "exit code 1; the change could not be taken back: read-only folder"
    with exchanging(RUNNING) as script:
        script >> done << do.StartCore(A) >> failed("exit code 1") << do.UndoChange()
        script >> failed("read-only folder") << do.StartCore(A)
        if comes_up:
            script >> done << do.CompleteCore(A) >> done << LearnVersion() << Record(A, 2) << Commit() << Publish()
            script << told(f"{why}; the core was started all the same")
        else:
            script >> failed("no") << RetryLater(0.0, "no") << LearnVersion() << Commit() << Publish()
            script << told(f"{why}; the previous core did not come up either: no")
    assert script.state.state is (State.RUNNING if comes_up else State.RECOVERING)


def test_with_nothing_to_run_only_the_change_is_made() -> None:
    with script_of(IDLE) as script:
        script >> on.ExchangeRequested() << do.MakeChange() >> done << LearnVersion() << Publish() << Answer()
    assert script.state == IDLE


def test_a_core_that_was_given_up_is_tried_with_what_was_changed() -> None:
    with script_of(FAILED) as script:
        script >> on.ExchangeRequested() << do.MakeChange()
        script >> done << RetryLater(0.0, "what the core is made of was changed")
        script << LearnVersion() << Publish() << Answer()
        assert (script.state.state, script.state.timer) == (State.FAILED, True)
        script >> on.RetryDue() << do.StartCore(A) >> failed("no room") << RetryLater(0.0, "no room")
        script << Commit() << Publish()


@pytest.mark.parametrize("life", [IDLE, FAILED])
def test_a_change_that_failed_changes_nothing(life: Life) -> None:
    with script_of(life) as script:
        script >> on.ExchangeRequested() << do.MakeChange() >> failed("no") << Publish() << told("no")
    assert script.state == life


def test_an_exchange_ends_a_lingering_core() -> None:
    with script_of(LINGERING) as script:
        script >> on.ExchangeRequested() << CancelTimer() << EndCore() >> done << do.MakeChange()
        script >> done << LearnVersion() << Publish() << Answer()
    assert (script.state.state, script.state.core) == (State.IDLE, None)


def test_an_exchange_while_recovering_comes_before_the_retry() -> None:
    with script_of(RECOVERING) as script:
        script >> on.ExchangeRequested() << CancelTimer() << Publish() << EndCore() >> done << do.MakeChange()
        script >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << LearnVersion() << Record(A, 2) << Commit() << Publish() << Answer()
        script >> on.RetryDue()
    assert script.state.state is State.RUNNING


@pytest.mark.parametrize("life", [RUNNING, LINGERING, RECOVERING, FAILED], ids=lambda life: str(life.state))
def test_a_hard_reset(life: Life) -> None:
    with script_of(life) as script:
        script >> on.ResetRequested() << Record(None, 1)
        if life.timer:
            script << CancelTimer()
        script << EndCore() >> done << do.ForgetState() >> done << Commit() << Publish() << Answer()
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)


def test_a_hard_reset_of_nothing() -> None:
    with script_of(IDLE) as script:
        script >> on.ResetRequested() << Record(None, 0) << do.ForgetState()
        script >> failed("a fault") << Commit() << Publish() << told("a fault")
    assert script.state.state is State.IDLE


# --- a new supervisor, and the end of one ----------------------------------------------------------------------------


def test_a_new_supervisor_finds_nothing() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(None, 0) << do.FindCore(None)
        assert not script.state.is_known, "it may be there"
        script >> found(Found.NOTHING) << Publish()
    assert script.state == IDLE
    assert script.state.is_known, "nobody waits for a core that nobody asked for"


def test_a_new_supervisor_takes_over_its_own_core() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A)
        assert (script.state.is_known, script.state.core_serves) == (False, False)
        script >> found(Found.MATCHING) << Publish() << do.TakeOverCore(A)
        assert (script.state.state, script.state.is_known) == (State.RESTORING, False)
        assert script.state.core_serves, "it runs all the time"
        script >> done << Record(A, 7) << Commit() << Publish()
        script >> on.CoreDied(7, None, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code None")
        script << Commit() << Publish()


def test_a_core_that_cannot_be_taken_over_makes_room_for_a_new_one() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A)
        script >> found(Found.MATCHING) << Publish() << do.TakeOverCore(A)
        script >> failed("deadline") << EndCore()
        assert not script.state.is_known, "it runs still"
        script >> done << RetryLater(0.0, "deadline") << Commit() << Publish()
        assert (script.state.state, script.state.core) == (State.RECOVERING, None)
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 8) << Commit() << Publish()
    assert script.state.state is State.RUNNING


def test_a_core_with_another_config_is_ended() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A) >> found(Found.OTHER) << Publish() << EndCore()
        assert script.state.state is State.STARTING
        script >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 8) << Commit() << Publish()
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


def test_a_core_that_cannot_even_be_looked_for_makes_room_for_a_new_one() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A) >> failed("the folder cannot be read") << Publish()
        script << EndCore() >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 8) << Commit() << Publish()
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


@pytest.mark.parametrize("what", [Found.MATCHING, Found.OTHER])
def test_a_core_that_must_not_run_is_ended(what: Found) -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(None, 7) << do.FindCore(None) >> found(what) << EndCore() >> done << Publish()
    assert (script.state.state, script.state.core) == (State.IDLE, None)


def unasked(action: Action) -> Event:
    assert isinstance(action, do.FindCore)
    return on.CoreFound(action, Found.UNASKED, A, "the store is new")


def test_a_core_of_which_the_store_knows_nothing_goes_on() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(None, 0) << do.FindCore(None) >> unasked << do.WatchCore(A) << Publish()
        life = script.state
        assert (life.state, life.desired, life.core, life.held) == (State.LINGERING, None, A, True)
        script >> on.LingerEnded() >> on.StartRefused(Equal("no JSON")) << told("no JSON")
        assert (script.state.held, script.state.unknown) == (True, "the store is new")
        script >> on.StartRequested(B, SAME) << do.CountStart(SAME) << do.TakeInUsers(B, everyone=False)
        script >> done << do.ApplyUsers(B) >> done << do.FollowConfig(B, changed=False)
        script >> done << do.ProbeCore() >> done << Record(B, 0) << Answer()
    assert (script.state.state, script.state.core, script.state.unknown) == (State.RUNNING, B, "")


def test_a_core_of_which_the_store_knows_nothing_is_not_brought_back() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(None, 0) << do.FindCore(None) >> unasked << do.WatchCore(A) << Publish()
        script >> on.ExchangeRequested()
        script << told(
            "the core cannot be exchanged, for its config is not known (the store is new): start the node first"
        )
        script >> on.CoreDied(0, None, AT) << ReapCore() << Commit() << Publish()
    assert (script.state.state, script.state.core, script.state.held) == (State.IDLE, None, False)


def test_a_start_that_fails_before_anything_is_touched_leaves_it_unasked() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(None, 0) << do.FindCore(None) >> unasked << do.WatchCore(A) << Publish()
        script >> on.StartRequested(B, NEW)
        script.skip_to(do.RenderConfig, done)
        script >> failed("a fault") << do.ReturnUsers() << do.DiscardRunner() << told("a fault")
        assert (script.state.state, script.state.core, script.state.held) == (State.LINGERING, A, True)
        script >> on.StartRequested(B, NEW)
        script.skip_to(do.StartCore, done)
        # Nobody knows the users of the one before.
        script >> failed("a fault") << do.ReturnUsers() << Record(None, 0) << do.DiscardRunner() << told("a fault")
    assert script.state.state is State.IDLE


def test_a_core_is_taken_over_with_the_config_that_it_has() -> None:
    def as_it_is(action: Action) -> Event:
        assert isinstance(action, do.FindCore)
        return on.CoreFound(action, Found.MATCHING, B)

    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A) >> as_it_is << Publish() << do.TakeOverCore(B)
        script >> done << Record(B, 7) << Commit() << Publish()
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, B, B)


def test_a_new_supervisor_whose_core_does_not_come_up() -> None:
    with script_of(BEGUN) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A) >> found(Found.NOTHING) << Publish() << do.StartCore(A)
        assert script.state.state is State.STARTING, "it is known that none runs"
        script >> failed("no memory") << RetryLater(0.0, "no memory") << Commit() << Publish()
    assert (script.state.state, script.state.desired) == (State.RECOVERING, A)


@pytest.mark.parametrize("life", [IDLE, RUNNING, LINGERING, RECOVERING, FAILED], ids=lambda life: str(life.state))
def test_a_shutdown_ends_the_core_and_keeps_what_has_to_run(life: Life) -> None:
    with script_of(life) as script:
        script >> on.ShutdownRequested()
        if life.timer:
            script << CancelTimer()
        script << EndCore() >> done << Answer()
    assert (script.state.desired, script.state.core) == (life.desired, None)
