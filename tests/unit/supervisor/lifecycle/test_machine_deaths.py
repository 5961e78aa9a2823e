"""The life of the node: a core that dies, and when it is brought back."""

from __future__ import annotations

import pytest

from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle import events as on
from pgnode.supervisor.lifecycle.actions import (
    Answer,
    CancelTimer,
    Commit,
    EndCore,
    GiveUp,
    Publish,
    ReapCore,
    Record,
    RetryLater,
)
from pgnode.supervisor.lifecycle.events import Moment
from pgnode.supervisor.lifecycle.states import State
from tests.unit.supervisor.lifecycle.scripts import (
    AT,
    NEW,
    RECOVERING,
    RUNNING,
    A,
    B,
    died,
    done,
    failed,
    script_of,
    starting,
)


def test_a_core_that_dies_is_brought_back() -> None:
    with script_of(RUNNING) as script:
        script >> on.CoreDied(1, -9, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code -9")
        script << Commit() << Publish()
        assert (script.state.state, script.state.desired, script.state.core) == (State.RECOVERING, A, None)
        script >> on.RetryDue() << do.StartCore(A)
        script >> failed("no memory") << RetryLater(0.5, "no memory") << Commit() << Publish()
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << Commit() << Publish()
    assert (script.state.state, script.state.core) == (State.RUNNING, A)
    assert (script.state.deaths, script.state.last_end) == (1, "no memory")


def test_why_a_core_was_killed_is_why_it_ended() -> None:
    with script_of(RUNNING) as script:
        script >> on.CoreHung(1, 60.0) << do.KillCore(60.0)
        reason = "the core hung for 60 s and was killed"
        script >> on.CoreDied(1, -9, AT) << ReapCore() << RetryLater(0.0, reason) << Commit() << Publish()
        assert (script.state.deaths, script.state.hangs, script.state.last_end) == (1, 1, reason)
        assert script.state.last_end_at == AT.now
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << Commit() << Publish()
        script >> on.CoreDied(2, -9, AT) << ReapCore()
        script << RetryLater(0.5, "the core ended with exit code -9") << Commit() << Publish()
    assert (script.state.deaths, script.state.hangs) == (2, 1)


def test_a_node_fails_while_it_runs() -> None:
    with script_of(died(RUNNING, times=8)) as script:
        script >> on.RetryDue() << do.StartCore(A)
        script >> failed("exit code 255") << GiveUp(60.0, "exit code 255", "it died 9 times in 60 s")
        script << Commit() << Publish()
    assert (script.state.state, script.state.desired, script.state.timer) == (State.FAILED, A, True)
    assert (script.state.given_up, script.state.next_try_at) == (1, AT.now + 60)


def test_what_was_given_up_is_tried_again_after_growing_pauses_once_each() -> None:
    at = AT.now
    with script_of(died(RUNNING, times=8)) as script:
        script >> on.RetryDue() << do.StartCore(A)
        script >> failed("no room") << GiveUp(60.0, "no room", "it died 9 times in 60 s") << Commit() << Publish()
        for number, pause in enumerate((120.0, 300.0, 600.0, 600.0, 600.0)):
            assert str(script.state.state) == "failed"
            at = script.state.next_try_at + 1
            script >> on.RetryDue() << do.StartCore(A)
            assert str(script.state.state) == "recovering"
            if number % 2:
                script >> failed("no room", Moment(at, 0.5))
            else:
                # It comes up, and ends a moment later.
                script >> done << do.CompleteCore(A) >> done
                script << Record(A, script.state.core_run) << Commit() << Publish()
                script >> on.CoreDied(script.state.core_run, 1, Moment(at, 0.5)) << ReapCore()
            reason = "no room" if number % 2 else "the core ended with exit code 1"
            script << GiveUp(pause, reason, "it did not stay up for 60 s", again=True) << Commit() << Publish()
            assert script.state.next_try_at == at + pause
        assert script.state.given_up == 6


def test_a_core_that_stays_up_after_it_was_given_up_is_as_any_other() -> None:
    with script_of(died(RUNNING, times=8)) as script:
        script >> on.RetryDue() << do.StartCore(A)
        script >> failed("no room") << GiveUp(60.0, "no room", "it died 9 times in 60 s") << Commit() << Publish()
        well = Moment(script.state.next_try_at + 60, 0.5)
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, script.state.core_run) << Commit() << Publish()
        assert script.state.state is State.RUNNING
        script >> on.CoreDied(script.state.core_run, 1, well) << ReapCore()
        script << RetryLater(0.0, "the core ended with exit code 1") << Commit() << Publish()


@pytest.mark.parametrize("by", ["start", "stop"])
def test_a_start_and_a_stop_forget_that_the_core_was_given_up(by: str) -> None:
    with script_of(died(RUNNING, times=8)) as script:
        script >> on.RetryDue() << do.StartCore(A)
        script >> failed("no room") << GiveUp(60.0, "no room", "it died 9 times in 60 s") << Commit() << Publish()
        if by == "stop":
            script >> on.StopRequested(10.0) << Record(None, script.state.core_run) << CancelTimer()
            script << EndCore() >> done << Answer()
            # One that was on its way.
            script >> on.RetryDue()
        script >> on.StartRequested(B, None)
        script.skip_to(do.CompleteCore, done)
        assert (CancelTimer() in script.actions, script.state.timer) == (True, False)
        script >> done
        script.skip_to(Answer, done)
        script >> on.CoreDied(script.state.core_run, 1, Moment(AT.now + 20, 0.5)) << ReapCore()
        script << RetryLater(0.0, "the core ended with exit code 1") << Commit() << Publish()


def test_an_exit_code_that_means_a_bad_config_fails_the_node_at_once() -> None:
    with script_of(RUNNING) as script:
        script >> on.CoreDied(1, 23, AT) << ReapCore()
        script << GiveUp(60.0, "the core ended with exit code 23", "exit code 23 means that it refuses its config")
        script << Commit() << Publish()
        assert str(script.state.state) == "failed"
        # What it refused may be there by now, a certificate for example.
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << Commit() << Publish()
    assert script.state.state is State.RUNNING


def test_the_death_of_a_core_that_was_replaced_is_no_news() -> None:
    with starting(RUNNING, NEW, do.CompleteCore) as script:
        script.skip_to(Answer, done)
        script >> on.CoreDied(1, 0, AT)
    assert script.state.state is State.RUNNING


def test_a_death_is_told_once() -> None:
    with script_of(RECOVERING) as script:
        script >> on.CoreDied(1, 0, AT)
    assert script.state == RECOVERING
