"""Starts as scripts: one for every way and every fallback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle import events as on
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
    CancelTimer,
    Commit,
    DiscardRunner,
    EndCore,
    Publish,
    ReapCore,
    Record,
    RetryLater,
    ReturnUsers,
    WarmUp,
)
from pgnode.supervisor.lifecycle.states import State
from pgnode.xray.config.diff import Decision, StartStrategy
from tests.unit.supervisor.lifecycle.scripts import (
    AT,
    FAILED,
    HOT_CHANGE,
    IDLE,
    LINGERING,
    NEW,
    NO_CORE,
    RECOVERING,
    RUNNING,
    SAME,
    A,
    B,
    Equal,
    count,
    died,
    done,
    failed,
    script_of,
    starting,
    told,
)

# --- a start that needs a new core -----------------------------------------------------------------------------------


def test_a_first_start() -> None:
    with script_of(IDLE) as script:
        (
            script
            >> on.StartRequested(A, None)
            << WarmUp()
            << do.CheckConfig(A, by_core=False)
            >> done
            << count(NO_CORE)
            << do.TakeInUsers(A, everyone=True)
            >> done
            << do.RenderConfig(A)
            >> done
            << EndCore()
            >> done
            << do.StartCore(A, rendered=True)
            >> done
            << do.CompleteCore(A)
            >> done
            << Record(A, 1)
            << DiscardRunner()
            << Answer()
        )
    assert script.state == replace(RUNNING, policy=script.state.policy)


def test_a_first_start_with_a_config_that_is_refused_leaves_all_as_it_was() -> None:
    with script_of(IDLE) as script:
        (
            script
            >> on.StartRequested(A, None)
            << WarmUp()
            << do.CheckConfig(A, by_core=False)
            >> failed("port 1 is in use")
            << DiscardRunner()
            << told("port 1 is in use")
        )
    assert script.state == IDLE


def test_a_first_start_whose_core_does_not_come_up() -> None:
    with starting(IDLE, None) as script:
        script >> failed("exit code 23") << ReturnUsers() << Record(None, 0) << DiscardRunner() << told("exit code 23")
    assert (script.state.state, script.state.desired) == (State.IDLE, None)


def test_a_start_that_changes_too_much_for_the_running_core() -> None:
    with script_of(RUNNING) as script:
        (
            script
            >> on.StartRequested(B, NEW)
            << WarmUp()
            << do.CheckConfig(B, by_core=True)
            >> done
            << count(NEW)
            << do.TakeInUsers(B, everyone=True)
            >> done
            << do.RenderConfig(B)
            >> done
            << EndCore()
            >> done
            << do.StartCore(B, rendered=True)
            >> done
            << do.CompleteCore(B)
            >> done
            << Record(B, 2)
            << DiscardRunner()
            << Answer()
        )
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, B, B)


def test_a_config_that_is_refused_disturbs_nothing_that_runs() -> None:
    with script_of(RUNNING) as script:
        script >> on.StartRequested(B, NEW) << WarmUp() << do.CheckConfig(B, by_core=True)
        script >> failed("no such geo file") << DiscardRunner() << told("no such geo file")
    assert script.state == RUNNING


def test_the_previous_core_is_restored_when_the_new_one_does_not_come_up() -> None:
    with starting(RUNNING, NEW) as script:
        (
            script
            >> failed("exit code 255")
            << ReturnUsers()
            << do.StartCore(A)
            >> done
            << do.CompleteCore(A)
            >> done
            << Record(A, 2)
            << DiscardRunner()
            << told("exit code 255; the previous core was restored")
        )
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, A, A)


def test_neither_the_new_core_nor_the_previous_one_comes_up() -> None:
    with starting(RUNNING, NEW) as script:
        (
            script
            >> failed("exit code 255")
            << ReturnUsers()
            << do.StartCore(A)
            >> failed("no memory")
            << RetryLater(0.0, "no memory")
            << Record(A, 1)
            << DiscardRunner()
            << told("exit code 255; and the previous config did not come up either: no memory")
        )
        assert (script.state.state, script.state.desired, script.state.core) == (State.RECOVERING, A, None)
        (
            script
            >> on.RetryDue()
            << do.StartCore(A)
            >> done
            << do.CompleteCore(A)
            >> done
            << Record(A, 2)
            << Commit()
            << Publish()
        )
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, A, A)


@pytest.mark.parametrize("where", [do.TakeInUsers, do.RenderConfig])
def test_a_fault_before_the_running_core_is_touched_leaves_it(where: type[Action]) -> None:
    with starting(RUNNING, NEW, where) as script:
        script >> failed("a fault") << ReturnUsers() << DiscardRunner() << told("a fault")
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, A, A)


def test_a_fault_in_what_follows_a_new_core_does_not_end_it() -> None:
    with starting(RUNNING, NEW, do.CompleteCore) as script:
        script >> failed("balancer") << Record(B, 2) << DiscardRunner() << Answer()
    assert script.state.state is State.RUNNING


def test_a_core_that_cannot_be_ended_is_taken_for_ended() -> None:
    with starting(RUNNING, NEW, do.EndCore) as script:
        script >> failed("did not end 5 s after SIGKILL") << do.StartCore(B, rendered=True)


def test_a_start_with_another_config_ends_a_lingering_core() -> None:
    with starting(LINGERING, NEW, do.TakeInUsers) as script:
        assert CancelTimer() in script.actions
        assert not script.state.timer
        script.skip_to(do.StartCore, done)
        script >> failed("exit code 23") << ReturnUsers() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << DiscardRunner() << told("exit code 23; the previous core was restored")
    # What was stopped, and lived on, is as desired as before.
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, A, A)


def test_a_start_clears_a_failed_node_and_where_it_fails_what_was_desired_is_tried_again() -> None:
    with starting(FAILED, None) as script:
        script >> failed("exit code 23") << ReturnUsers() << RetryLater(0.0, "exit code 23")
        script << Record(A, 1) << DiscardRunner() << told("exit code 23")
        assert (script.state.state, script.state.desired) == (State.RECOVERING, A)
        script >> on.RetryDue() << do.StartCore(A)
    with starting(FAILED, None, do.TakeInUsers) as script:
        script >> failed("no room") << ReturnUsers() << EndCore() >> done << do.StartCore(A)
        script >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << DiscardRunner() << told("no room; the previous core was restored")
    assert (script.state.state, script.state.desired) == (State.RUNNING, A)
    with starting(FAILED, None, do.CompleteCore) as script:
        script >> done << Record(B, 2) << DiscardRunner() << Answer()
    assert (script.state.state, script.state.desired) == (State.RUNNING, B)


def test_a_start_while_recovering_comes_before_the_retry() -> None:
    with starting(RECOVERING, None, do.TakeInUsers) as script:
        assert CancelTimer() in script.actions
        script.skip_to(do.StartCore, done)
        script >> failed("exit code 23") << ReturnUsers() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << DiscardRunner() << told("exit code 23; the previous core was restored")
    assert script.state.state is State.RUNNING


def test_a_start_is_forgiven_what_died_before() -> None:
    tired = died(RUNNING, times=8)
    with starting(tired, None, do.CompleteCore) as script:
        script >> done << Record(B, 2) << DiscardRunner() << Answer()
        script >> on.CoreDied(2, 255, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code 255")
        script << Commit() << Publish()


def test_a_core_whose_api_is_silent_is_replaced() -> None:
    silent = replace(RUNNING, api_error="deadline")
    decision = Decision(StartStrategy.NEW_CORE, "the core's API does not answer: deadline")
    with starting(silent, HOT_CHANGE, do.TakeInUsers) as script:
        assert count(decision) in script.actions
        script.skip_to(do.CompleteCore, done)
        script >> done << Record(B, 2) << DiscardRunner() << Answer()
    assert script.state.api_error == ""


# --- a start that fails while a core lingers -------------------------------------------------------------------------


HELD = replace(LINGERING, timer=False, held=True)


def test_a_config_that_is_refused_leaves_a_lingering_core_as_desired_as_before_the_stop() -> None:
    with script_of(LINGERING) as script:
        script >> on.StartRequested(B, NEW) << WarmUp() << do.CheckConfig(B, by_core=True)
        script >> failed("no such geo file") << CancelTimer() << Record(A, 1) << DiscardRunner()
        script << told("no such geo file")
        assert script.state == HELD
        # Once more; and its time was over meanwhile.
        script >> on.StartRefused(Equal("no JSON")) << Record(A, 1) << told("no JSON")
        assert script.state == HELD


def test_a_stop_that_nothing_follows_ends_a_core_that_was_held() -> None:
    with script_of(HELD) as script:
        script >> on.StopRequested(30.0) << Record(None, 1) << do.LingerFor(30.0) << Answer()
        assert (script.state.state, script.state.held, script.state.timer) == (State.LINGERING, False, True)
        script >> on.LingerEnded() << EndCore()
    with script_of(HELD) as script:
        script >> on.StopRequested(0.0) << Record(None, 1) << EndCore() >> done << Answer()
    assert script.state.state is State.IDLE


def test_a_core_that_was_held_is_brought_back_when_it_dies() -> None:
    with script_of(HELD) as script:
        script >> on.CoreDied(1, -9, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code -9")
        script << Commit() << Publish()
    assert (script.state.state, script.state.desired, script.state.held) == (State.RECOVERING, A, False)


def test_a_core_that_was_held_is_exchanged_like_one_that_runs() -> None:
    with script_of(HELD) as script:
        script >> on.ExchangeRequested() << Publish() << EndCore() >> done << do.MakeChange() >> done << do.StartCore(A)


def test_a_reset_ends_a_core_that_was_held() -> None:
    with script_of(HELD) as script:
        script >> on.ResetRequested() << Record(None, 1) << EndCore()


def test_a_start_takes_a_held_core_over() -> None:
    with starting(HELD, SAME, do.ProbeCore) as script:
        script >> done << Record(B, 1) << Answer()
    assert (script.state.state, script.state.held) == (State.RUNNING, False)


@pytest.mark.parametrize("action", [do.TakeInUsers, do.RenderConfig])
def test_a_start_that_fails_before_the_lingering_core_is_ended(action: type[Action]) -> None:
    with starting(LINGERING, NEW, action) as script:
        script >> failed("broken") << ReturnUsers() << Record(A, 1) << DiscardRunner() << told("broken")
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, A, A)


def test_a_start_that_cannot_be_read_leaves_what_runs() -> None:
    error = Equal("config is no JSON")
    with script_of(LINGERING) as script:
        script >> on.StartRefused(error) << CancelTimer() << Record(A, 1) << told("config is no JSON")
    assert script.state == HELD
    for life in (IDLE, RUNNING, RECOVERING, FAILED):
        with script_of(life) as script:
            script >> on.StartRefused(error) << told("config is no JSON")
        assert script.state == life


def test_a_hot_change_of_a_lingering_core_that_fails_half_way_is_a_new_core() -> None:
    with starting(LINGERING, HOT_CHANGE, do.ChangeCore) as script:
        script >> failed("inbound 'x' is still there")
        script << do.CountFailedChange(Equal("inbound 'x' is still there")) << do.RenderConfig(B)
        script >> done << EndCore() >> done << do.StartCore(B, rendered=True)
        script >> done << do.CompleteCore(B) >> done << Record(B, 2) << DiscardRunner() << Answer()
    assert (script.state.state, script.state.core) == (State.RUNNING, B)


def test_a_start_that_keeps_the_core_forgets_deaths_as_any_other() -> None:
    life = died(RUNNING, times=5)
    with script_of(life) as script:
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, script.state.core_run) << do.Commit() << do.Publish()
        script >> on.StartRequested(B, SAME)
        script.skip_to(Answer, done)
        script >> on.CoreDied(script.state.core_run, 1, AT) << do.ReapCore()
        script << RetryLater(0.0, "the core ended with exit code 1") << do.Commit() << do.Publish()
