"""Stops and silence as scripts; and what leads out of what was interrupted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgnode.errors import NodeError
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle import events as on
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
    CancelTimer,
    CheckConfig,
    Commit,
    DiscardRunner,
    EndCore,
    LearnVersion,
    LingerFor,
    Publish,
    ReapCore,
    Record,
    RetryLater,
    ReturnUsers,
    WarmUp,
)
from pgnode.supervisor.lifecycle.events import Event
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.lifecycle.machine import transition
from pgnode.supervisor.lifecycle.states import State, TransitionError
from pgnode.testing.run_specs import make_run_spec
from pgnode.xray.config.diff import Decision, StartStrategy
from tests.unit.supervisor.lifecycle.scripts import (
    AT,
    FAILED,
    HOT_CHANGE,
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
    applied,
    count,
    done,
    failed,
    script_of,
    starting,
    told,
)

# --- stop, and a core that lingers -----------------------------------------------------------------------------------


def test_a_stop_lets_the_core_linger_until_the_time_is_over() -> None:
    with script_of(RUNNING) as script:
        script >> on.StopRequested(10.0) << Record(None, 1) << LingerFor(10.0) << Answer()
        assert (script.state.state, script.state.desired, script.state.core) == (State.LINGERING, None, A)
        script >> on.StopRequested(10.0) << Answer()
        script >> on.LingerEnded() << EndCore()
        assert script.state.state is State.STOPPING
        script >> done << Commit() << Publish()
    assert (script.state.state, script.state.core, script.state.timer) == (State.IDLE, None, False)


@pytest.mark.parametrize(
    ("life", "seconds"), [(RUNNING, 0.0), (replace(RUNNING, api_error="deadline"), 10.0)], ids=["no linger", "silent"]
)
def test_a_core_that_may_not_linger_is_ended_at_once(life: Life, seconds: float) -> None:
    with script_of(life) as script:
        script >> on.StopRequested(seconds) << Record(None, 1) << EndCore()
        assert script.state.state is State.STOPPING
        script >> done << Answer()
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)


def test_a_stop_of_nothing() -> None:
    with script_of(IDLE) as script:
        script >> on.StopRequested(10.0) << Answer()
    assert script.state == IDLE


def test_a_stop_while_recovering_ends_the_retries() -> None:
    with script_of(RECOVERING) as script:
        script >> on.StopRequested(10.0) << Record(None, 1) << CancelTimer() << EndCore()
        script >> done << Answer()
        # One that was on its way.
        script >> on.RetryDue()
    assert (script.state.state, script.state.desired) == (State.IDLE, None)


def test_a_stop_of_a_failed_node() -> None:
    with script_of(FAILED) as script:
        script >> on.StopRequested(10.0) << Record(None, 1) << CancelTimer() << EndCore() >> done << Answer()
    assert (script.state.state, script.state.timer) == (State.IDLE, False)


def test_a_lingering_core_that_dies_is_not_brought_back() -> None:
    with script_of(LINGERING) as script:
        script >> on.CoreDied(1, 0, AT) << ReapCore() << CancelTimer() << Commit() << Publish()
        script >> on.LingerEnded()
    assert (script.state.state, script.state.core, script.state.timer) == (State.IDLE, None, False)


@pytest.mark.parametrize("life", [RUNNING, LINGERING], ids=["running", "lingering"])
def test_a_core_that_hangs_is_killed_and_what_follows_is_its_death(life: Life) -> None:
    with script_of(life) as script:
        script >> on.CoreHung(1, 60.0) << do.KillCore(60.0)
        assert (script.state.hangs, script.state.state) == (1, life.state)
        script >> on.CoreDied(1, -9, AT) << ReapCore()
        script.skip_to(Publish, done)
        # Noticed once more while it ended.
        script >> on.CoreHung(1, 62.0)
    assert script.state.state is (State.RECOVERING if life is RUNNING else State.IDLE)


@pytest.mark.parametrize("life", [replace(RUNNING, core_run=2), IDLE, RECOVERING], ids=["another", "none", "dead"])
def test_a_hang_that_is_over_has_no_consequence(life: Life) -> None:
    with script_of(life) as script:
        script >> on.CoreHung(1, 60.0)
    assert script.state == life


def test_a_lingering_core_is_taken_over_by_a_start() -> None:
    with script_of(LINGERING) as script:
        (
            script
            >> on.StartRequested(B, SAME)
            << count(SAME)
            << CancelTimer()
            << do.TakeInUsers(B, everyone=False)
            >> done
            << do.ApplyUsers(B)
            >> applied()
            << do.FollowConfig(B, changed=False)
            >> done
            << do.ProbeCore()
            >> done
            << Record(B, 1)
            << Answer()
        )
        # Its time was over while the start was under way.
        script >> on.LingerEnded()
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, B, B)


@pytest.mark.parametrize("life", [RUNNING, LINGERING])
def test_log_options_that_no_core_was_started_with_are_checked_by_one(life: Life) -> None:
    masked = make_run_spec("a", log={"maskAddress": "half"})
    with script_of(life) as script:
        script >> on.StartRequested(masked, SAME) << CheckConfig(masked, by_core=True)
        script >> failed("log is refused by the core")
        if life is LINGERING:
            script << CancelTimer() << Record(A, 1)
        script << DiscardRunner() << Answer(Equal("log is refused by the core"))
    assert script.state.core == life.core


def test_parts_of_a_lingering_core_are_changed() -> None:
    with starting(LINGERING, HOT_CHANGE, do.FollowConfig) as script:
        script >> done << do.ProbeCore() >> done << Record(B, 1) << Answer()
    assert (script.state.state, script.state.core) == (State.RUNNING, B)


def silent_start(where: str) -> Script:
    """A start that finds out that the core which lingers does not answer, up to its replacement."""
    script = starting(LINGERING, SAME, do.ApplyUsers)
    if where == "apply":
        script >> failed("deadline")
    else:
        script >> applied("deadline" if where == "users" else "") << do.FollowConfig(B, changed=False) >> done
    if where == "probe":
        script << do.ProbeCore() >> failed("deadline")
    return script << do.CountFailedChange(Equal("deadline")) << CheckConfig(B, by_core=True)


WHERE = pytest.mark.parametrize("where", ["apply", "users", "probe"])


@WHERE
def test_a_lingering_core_that_does_not_answer_is_replaced(where: str) -> None:
    with silent_start(where) as script:
        script >> done << do.RenderConfig(B) >> done << EndCore() >> done << do.StartCore(B, rendered=True) >> done
        script << do.CompleteCore(B) >> done << Record(B, 2) << DiscardRunner() << Answer(None)
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, B, B)


@WHERE
def test_a_lingering_core_that_does_not_answer_is_kept_where_another_would_not_come_up(where: str) -> None:
    with silent_start(where) as script:
        script >> failed("no certificate") << ReturnUsers() << Record(A, 1) << DiscardRunner() << told("no certificate")
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, A, A)


@WHERE
def test_a_lingering_core_whose_replacement_does_not_come_up_is_brought_back(where: str) -> None:
    with silent_start(where) as script:
        script >> done << do.RenderConfig(B) >> done << EndCore() >> done << do.StartCore(B, rendered=True)
        script >> failed("exit code 255") << ReturnUsers() << do.StartCore(A)
        script >> failed("exit code 255") << RetryLater(0.0, "exit code 255") << Record(A, 1) << DiscardRunner()
        script << told("exit code 255; and the previous config did not come up either: exit code 255")
        assert (script.state.state, script.state.desired) == (State.RECOVERING, A)
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A) >> done << Record(A, 2)
        script << Commit() << Publish()
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


def test_a_lingering_core_comes_back_where_neither_it_nor_another_came_up_at_first() -> None:
    with starting(LINGERING, NEW) as script:
        script >> failed("exit code 255")
        script << ReturnUsers() << do.StartCore(A) >> failed("no room")
        script << RetryLater(0.0, "no room") << Record(A, 1) << DiscardRunner()
        script << told("exit code 255; and the previous config did not come up either: no room")
        script >> on.RetryDue() << do.StartCore(A)


# --- a silent API, a silent panel -------------------------------------------------------------------------------------


def test_what_the_api_says_is_told_when_it_changes() -> None:
    with script_of(RUNNING) as script:
        script >> on.ApiProbed(1, "deadline") << Publish()
        script >> on.ApiProbed(1, "deadline")
        script >> on.ApiProbed(0, "")
        assert script.state.api_error == "deadline"
        script >> on.ApiProbed(1, "") << Publish()
    with script_of(LINGERING) as script:
        script >> on.ApiProbed(1, "deadline")


def test_news_disturb_nothing_that_is_under_way() -> None:
    with starting(RUNNING, HOT_CHANGE, do.ChangeCore) as script:
        script >> on.PanelNoticed(True) << Publish()
        script >> on.ApiProbed(1, "deadline") << Publish()
        script >> on.Done(do.ChangeCore(B)) << do.FollowConfig(B, changed=True)
        script >> done << Record(B, 1) << Answer()
        script >> on.PanelNoticed(True)
        script >> on.PanelNoticed(False) << Publish()


def test_a_silent_panel_may_mean_a_stop() -> None:
    with script_of(RUNNING) as script:
        script >> on.KeepAliveExpired(1, 10.0) << Record(None, 1) << LingerFor(10.0) << Commit() << Publish()
    assert script.state.state is State.LINGERING
    with script_of(FAILED) as script:
        script >> on.KeepAliveExpired(1, 10.0) << Record(None, 1) << CancelTimer()
        script << EndCore() >> done << Commit() << Publish()
    assert script.state.state is State.IDLE


def test_a_start_while_the_stop_of_a_silent_panel_waits_is_a_call() -> None:
    with starting(RUNNING, SAME, do.ApplyUsers) as script:
        script >> applied() << do.FollowConfig(B, changed=False) >> done << Record(B, 1) << Answer()
        script >> on.KeepAliveExpired(1, 10.0)
    assert (script.state.state, script.state.desired) == (State.RUNNING, B)


# --- what was interrupted, and faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [do.TakeInUsers, do.RenderConfig, do.EndCore, do.StartCore, do.CompleteCore])
@pytest.mark.parametrize("life", [IDLE, RUNNING, LINGERING, RECOVERING, FAILED], ids=lambda life: str(life.state))
def test_a_stop_after_a_start_that_was_interrupted(life: Life, where: type[Action]) -> None:
    with starting(life, NEW, where) as script:
        script.state = replace(script.state)
        script >> on.StopRequested(10.0) << Record(None, script.state.core_run) << EndCore() >> done << Answer()
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)


@pytest.mark.parametrize("where", [do.TakeInUsers, do.ApplyUsers, do.FollowConfig])
def test_a_start_after_one_that_was_interrupted_is_a_new_core(where: type[Action]) -> None:
    reason = Decision(StartStrategy.NEW_CORE, "what was under way was interrupted")
    with starting(RUNNING, SAME, where) as script:
        script >> on.StartRequested(A, SAME) << WarmUp() << do.CheckConfig(A, by_core=True)
        script >> done << count(reason) << do.TakeInUsers(A, everyone=True)
        script.skip_to(do.CompleteCore, done)
        script >> done << Record(A, 2) << DiscardRunner() << Answer()
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, A, A)


def test_a_refused_start_after_one_that_was_interrupted_restores_what_has_to_run() -> None:
    with starting(RUNNING, NEW, do.EndCore) as script:
        script >> on.StartRequested(B, None) << WarmUp() << do.CheckConfig(B, by_core=True)
        script >> failed("no") << EndCore() >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << DiscardRunner() << told("no; the previous core was restored")
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


def test_a_death_after_something_that_was_interrupted() -> None:
    with starting(RUNNING, NEW, do.RenderConfig) as script:
        script >> on.CoreDied(1, 255, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code 255")
        script << Commit() << Publish()
    with starting(IDLE, None, do.CompleteCore) as script:
        script >> on.CoreDied(1, 255, AT) << ReapCore() << Commit() << Publish()
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)
    with (script_of(LINGERING) >> on.LingerEnded()).skip_to(do.EndCore, done) as script:
        script >> on.CoreDied(1, 255, AT) << EndCore() >> done << Commit() << Publish()
    assert script.state.state is State.IDLE


def test_an_exchange_after_something_that_was_interrupted() -> None:
    with starting(IDLE, None) as script:
        script >> on.ExchangeRequested() << EndCore() >> done << do.MakeChange()
        script >> done << LearnVersion() << Publish() << Answer()
    assert script.state.state is State.IDLE
    with (script_of(FAILED) >> on.ExchangeRequested()).skip_to(do.MakeChange, done) as script:
        script >> on.ExchangeRequested() << EndCore() >> done << do.MakeChange()
        script >> done << RetryLater(0.0, "what the core is made of was changed")
        script << LearnVersion() << Publish() << Answer()
    assert script.state.state is State.FAILED


@pytest.mark.parametrize(
    "event",
    [on.Done(do.EndCore()), on.Done(do.StartCore(B)), on.Failed(do.ProbeCore(), NodeError("x"), AT)],
    ids=["stray", "other spec", "other kind"],
)
def test_an_outcome_that_nobody_waits_for_is_a_fault_and_changes_nothing(event: Event) -> None:
    for script in (script_of(IDLE), starting(RUNNING, NEW)):
        before = script.state
        with pytest.raises(TransitionError):
            script >> event
        assert script.state is before


@pytest.mark.parametrize("event", [Event(), on.Request()])
def test_an_event_that_is_not_known_is_a_fault(event: Event) -> None:
    with pytest.raises(TransitionError):
        transition(IDLE, event)
