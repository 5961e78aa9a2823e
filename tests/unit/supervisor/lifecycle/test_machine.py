"""The life of the node as scripts: one for every way and every fallback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pgnode.errors import NodeError, StartFailedError
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle import events as on
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
    CancelTimer,
    Commit,
    DiscardRunner,
    EndCore,
    GiveUp,
    LearnVersion,
    LingerFor,
    Publish,
    ReapCore,
    Record,
    RetryLater,
    ReturnUsers,
    WarmUp,
)
from pgnode.supervisor.lifecycle.events import Event, Found, Moment
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.lifecycle.machine import transition
from pgnode.supervisor.lifecycle.states import State, TransitionError
from pgnode.testing.playbook import Playbook
from pgnode.testing.run_specs import make_run_spec
from pgnode.xray.config.diff import Decision, StartStrategy

A, B = make_run_spec("a"), make_run_spec("b")
AT = Moment(now=100.0, chance=0.5)
NEW = Decision(StartStrategy.NEW_CORE, "log changed")
NO_CORE = Decision(StartStrategy.NEW_CORE, "no core runs")
SAME = Decision(StartStrategy.SAME, "the base config is the running one")
PARTS = Decision(StartStrategy.PARTS, "inbound 'b' added")

IDLE = Life()
RUNNING = Life(State.RUNNING, desired=A, core=A, core_run=1, decisions=1)
LINGERING = Life(State.LINGERING, core=A, core_run=1, decisions=2, timer=True)
RECOVERING = Life(State.RECOVERING, desired=A, core_run=1, decisions=1, timer=True)
FAILED = Life(State.FAILED, desired=A, core_run=1, decisions=1)

Book = Playbook[Life, Event, Action]


def book(life: Life) -> Book:
    return Playbook(transition, life)


def done(action: Action) -> Event:
    """The outcome when all is well."""
    assert isinstance(action, do.Question), f"{action!r} has no outcome"
    return on.UsersApplied(action) if isinstance(action, do.ApplyUsers) else on.Done(action)


class _Failed(NodeError):
    """An error that equals another one with the same text: scripts compare actions."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeError) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def failed(text: str, at: Moment = AT) -> Callable[[Action], Event]:
    def make(action: Action) -> Event:
        assert isinstance(action, do.Question), f"{action!r} has no outcome"
        return on.Failed(action, StartFailedError(text), at)

    return make


def told(text: str) -> Answer:
    return Answer(_Failed(text))


def applied(text: str = "") -> Callable[[Action], Event]:
    def make(action: Action) -> Event:
        assert isinstance(action, do.ApplyUsers)
        return on.UsersApplied(action, StartFailedError(text) if text else None)

    return make


def found(what: Found) -> Callable[[Action], Event]:
    def make(action: Action) -> Event:
        assert isinstance(action, do.FindCore)
        return on.CoreFound(action, what)

    return make


def count(decision: Decision) -> do.CountStart:
    return do.CountStart(decision)


# --- a start that needs a new core -----------------------------------------------------------------------------------


def test_a_first_start() -> None:
    with book(IDLE) as script:
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
    with book(IDLE) as script:
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


def starting(life: Life, diff: Decision | None, until: type[Action] = do.StartCore) -> Book:
    """A start of B, up to where that action is to be carried out."""
    return (book(life) >> on.StartRequested(B, diff)).skip_to(until, done)


def test_a_first_start_whose_core_does_not_come_up() -> None:
    with starting(IDLE, None) as script:
        script >> failed("exit code 23") << ReturnUsers() << Record(None, 0) << DiscardRunner() << told("exit code 23")
    assert (script.state.state, script.state.desired) == (State.IDLE, None)


def test_a_start_that_changes_too_much_for_the_running_core() -> None:
    with book(RUNNING) as script:
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
    with book(RUNNING) as script:
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


def test_a_fault_before_a_lingering_core_is_touched_ends_it() -> None:
    with starting(LINGERING, NEW, do.RenderConfig) as script:
        (
            script
            >> failed("a fault")
            << ReturnUsers()
            << EndCore()
            >> done
            << Record(None, 1)
            << DiscardRunner()
            << told("a fault")
        )
    assert (script.state.state, script.state.core) == (State.IDLE, None)


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
        script >> failed("exit code 23") << ReturnUsers() << Record(None, 1) << DiscardRunner() << told("exit code 23")
    # What was stopped is nothing to come back to.
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)


def test_a_start_clears_a_failed_node_and_has_nothing_to_come_back_to() -> None:
    with starting(FAILED, None) as script:
        script >> failed("exit code 23") << ReturnUsers() << Record(None, 1) << DiscardRunner() << told("exit code 23")
    assert script.state.state is State.IDLE
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
    with starting(silent, PARTS, do.TakeInUsers) as script:
        assert count(decision) in script.actions
        script.skip_to(do.CompleteCore, done)
        script >> done << Record(B, 2) << DiscardRunner() << Answer()
    assert script.state.api_error == ""


# --- a start that keeps the core -------------------------------------------------------------------------------------


def test_the_same_config_changes_users_only() -> None:
    again = make_run_spec("a", keep_alive_seconds=5)
    with book(RUNNING) as script:
        (
            script
            >> on.StartRequested(again, SAME)
            << count(SAME)
            << do.TakeInUsers(again, everyone=False)
            >> done
            << do.ApplyUsers(again)
            >> applied()
            << do.FollowConfig(again, changed=False)
            >> done
            << Record(again, 1)
            << Answer()
        )
    assert (script.state.state, script.state.desired) == (State.RUNNING, again)


def test_users_whom_the_core_did_not_answer_for_are_the_callers_error_and_nothing_else() -> None:
    with book(RUNNING) as script:
        script >> on.StartRequested(B, SAME) << count(SAME) << do.TakeInUsers(B, everyone=False)
        script >> done << do.ApplyUsers(B)
        script >> applied("the core lost an inbound") << do.FollowConfig(B, changed=False)
        script >> done << Record(B, 1) << told("the core lost an inbound")
        assert script.state.state is State.RUNNING
        # It was ended for that, and the next one has everybody.
        script >> on.CoreDied(1, 0, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code 0")
        script << Commit() << Publish()
        script >> on.RetryDue() << do.StartCore(B) >> done << do.CompleteCore(B) >> done
        script << Record(B, 2) << Commit() << Publish()
    assert (script.state.state, script.state.core) == (State.RUNNING, B)


@pytest.mark.parametrize("where", [do.TakeInUsers, do.ApplyUsers])
def test_a_fault_while_users_are_changed_leads_to_a_new_core(where: type[Action]) -> None:
    with starting(RUNNING, SAME, where) as script:
        script >> failed("a fault") << do.CountFailedChange(_Failed("a fault")) << do.RenderConfig(B)
        assert script.state.state is State.STARTING
        script >> done << EndCore() >> done << do.StartCore(B, rendered=True) >> done << do.CompleteCore(B)
        script >> done << Record(B, 2) << DiscardRunner() << Answer()
    assert (script.state.state, script.state.core) == (State.RUNNING, B)


def test_parts_of_the_running_core_are_changed() -> None:
    with book(RUNNING) as script:
        (
            script
            >> on.StartRequested(B, PARTS)
            << do.CheckConfig(B, by_core=True)
            >> done
            << do.PrepareHotChange(B, PARTS)
            >> done
            << count(PARTS)
            << do.TakeInUsers(B, everyone=True)
            >> done
            << do.ChangeCore(B)
            >> done
            << do.FollowConfig(B, changed=True)
            >> done
            << Record(B, 1)
            << Answer()
        )
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, B, B)


def test_parts_that_cannot_be_prepared_are_a_new_core() -> None:
    decision = Decision(StartStrategy.NEW_CORE, "inbound 'b' added, but not by parts: no scratch core")
    with starting(RUNNING, PARTS, do.PrepareHotChange) as script:
        script >> failed("no scratch core") << WarmUp() << count(decision) << do.TakeInUsers(B, everyone=True)
        script >> done << do.RenderConfig(B) >> done << EndCore() >> done << do.StartCore(B, rendered=True)
        script >> done << do.CompleteCore(B) >> done << Record(B, 2) << DiscardRunner() << Answer()


def half_changed() -> Book:
    script = starting(RUNNING, PARTS, do.ChangeCore)
    return script >> failed("inbound 'x' is still there") << do.CountFailedChange(_Failed("inbound 'x' is still there"))


def test_a_hot_change_that_fails_half_way_is_a_new_core() -> None:
    with half_changed() as script:
        script << do.RenderConfig(B) >> done << EndCore() >> done << do.StartCore(B, rendered=True)
        script >> done << do.CompleteCore(B) >> done << Record(B, 2) << DiscardRunner() << Answer()
    assert (script.state.state, script.state.core) == (State.RUNNING, B)


def test_a_hot_change_that_fails_half_way_and_whose_new_core_does_not_come_up() -> None:
    with half_changed() as script:
        script << do.RenderConfig(B) >> done << EndCore() >> done << do.StartCore(B, rendered=True)
        script >> failed("exit code 23") << ReturnUsers() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << DiscardRunner() << told("exit code 23; the previous core was restored")
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


def test_a_hot_change_that_fails_half_way_and_after_which_nothing_comes_up() -> None:
    with half_changed() as script:
        script << do.RenderConfig(B) >> done << EndCore() >> done << do.StartCore(B, rendered=True)
        script >> failed("exit code 23") << ReturnUsers() << do.StartCore(A)
        script >> failed("no memory") << RetryLater(0.0, "no memory") << Record(A, 1) << DiscardRunner()
        script << told("exit code 23; and the previous config did not come up either: no memory")
    assert (script.state.state, script.state.desired) == (State.RECOVERING, A)


def test_a_half_changed_core_does_not_stay_when_no_config_can_be_made_for_a_new_one() -> None:
    with half_changed() as script:
        script << do.RenderConfig(B) >> failed("a fault") << ReturnUsers() << EndCore()
        script >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << DiscardRunner() << told("a fault; the previous core was restored")


# --- stop, and a core that lingers -----------------------------------------------------------------------------------


def test_a_stop_lets_the_core_linger_until_the_time_is_over() -> None:
    with book(RUNNING) as script:
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
    with book(life) as script:
        script >> on.StopRequested(seconds) << Record(None, 1) << EndCore()
        assert script.state.state is State.STOPPING
        script >> done << Answer()
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)


def test_a_stop_of_nothing() -> None:
    with book(IDLE) as script:
        script >> on.StopRequested(10.0) << Answer()
    assert script.state == IDLE


def test_a_stop_while_recovering_ends_the_retries() -> None:
    with book(RECOVERING) as script:
        script >> on.StopRequested(10.0) << Record(None, 1) << CancelTimer() << EndCore()
        script >> done << Answer()
        # One that was on its way.
        script >> on.RetryDue()
    assert (script.state.state, script.state.desired) == (State.IDLE, None)


def test_a_stop_of_a_failed_node() -> None:
    with book(FAILED) as script:
        script >> on.StopRequested(10.0) << Record(None, 1) << EndCore() >> done << Answer()
    assert script.state.state is State.IDLE


def test_a_lingering_core_that_dies_is_not_brought_back() -> None:
    with book(LINGERING) as script:
        script >> on.CoreDied(1, 0, AT) << ReapCore() << CancelTimer() << Commit() << Publish()
        script >> on.LingerEnded()
    assert (script.state.state, script.state.core, script.state.timer) == (State.IDLE, None, False)


def test_a_lingering_core_is_taken_over_by_a_start() -> None:
    with book(LINGERING) as script:
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


def test_parts_of_a_lingering_core_are_changed() -> None:
    with starting(LINGERING, PARTS, do.FollowConfig) as script:
        script >> done << do.ProbeCore() >> done << Record(B, 1) << Answer()
    assert (script.state.state, script.state.core) == (State.RUNNING, B)


@pytest.mark.parametrize("where", ["users", "probe"])
def test_a_lingering_core_that_does_not_answer_is_replaced(where: str) -> None:
    with starting(LINGERING, SAME, do.ApplyUsers) as script:
        script >> applied("deadline" if where == "users" else "") << do.FollowConfig(B, changed=False) >> done
        if where == "probe":
            script << do.ProbeCore() >> failed("deadline")
        script << do.CountFailedChange(_Failed("deadline")) << do.RenderConfig(B)
        script >> done << EndCore() >> done << do.StartCore(B, rendered=True)
        script >> failed("exit code 255") << ReturnUsers() << Record(None, 1) << DiscardRunner()
        script << told("exit code 255")
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)


# --- a core that dies ------------------------------------------------------------------------------------------------


def died(life: Life, times: int, at: float = AT.now) -> Life:
    """The core died so often in a row, and no retry was due yet."""
    for number in range(times):
        script = book(life) >> on.CoreDied(life.core_run, 255, Moment(at + number, 0.5))
        if number < times - 1:
            script.skip_to(Publish, done)
            script >> on.RetryDue()
            script.skip_to(do.CompleteCore, done)
            script >> done
        life = replace(script.state, core_run=1)
    return life


def test_a_core_that_dies_is_brought_back() -> None:
    with book(RUNNING) as script:
        script >> on.CoreDied(1, -9, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code -9")
        script << Commit() << Publish()
        assert (script.state.state, script.state.desired, script.state.core) == (State.RECOVERING, A, None)
        script >> on.RetryDue() << do.StartCore(A)
        script >> failed("no memory") << RetryLater(0.5, "no memory") << Commit() << Publish()
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << Commit() << Publish()
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


def test_a_node_fails_while_it_runs() -> None:
    with book(died(RUNNING, times=8)) as script:
        script >> on.RetryDue() << do.StartCore(A)
        script >> failed("exit code 255") << GiveUp("exit code 255", "it died 9 times in 60 s") << Commit() << Publish()
    assert (script.state.state, script.state.desired, script.state.timer) == (State.FAILED, A, False)


def test_an_exit_code_that_means_a_bad_config_fails_the_node_at_once() -> None:
    with book(RUNNING) as script:
        script >> on.CoreDied(1, 23, AT) << ReapCore()
        script << GiveUp("the core ended with exit code 23", "exit code 23 means that it refuses its config")
        script << Commit() << Publish()
        assert script.state.state is State.FAILED
        # Nothing is due, and nothing comes of it.
        script >> on.RetryDue()
    assert script.state.state is State.FAILED


def test_the_death_of_a_core_that_was_replaced_is_no_news() -> None:
    with starting(RUNNING, NEW, do.CompleteCore) as script:
        script.skip_to(Answer, done)
        script >> on.CoreDied(1, 0, AT)
    assert script.state.state is State.RUNNING


def test_a_death_is_told_once() -> None:
    with book(RECOVERING) as script:
        script >> on.CoreDied(1, 0, AT)
    assert script.state == RECOVERING


# --- a silent API, a silent panel -------------------------------------------------------------------------------------


def test_what_the_api_says_is_told_when_it_changes() -> None:
    with book(RUNNING) as script:
        script >> on.ApiProbed(1, "deadline") << Publish()
        script >> on.ApiProbed(1, "deadline")
        script >> on.ApiProbed(0, "")
        assert script.state.api_error == "deadline"
        script >> on.ApiProbed(1, "") << Publish()
    with book(LINGERING) as script:
        script >> on.ApiProbed(1, "deadline")


def test_news_disturb_nothing_that_is_under_way() -> None:
    with starting(RUNNING, PARTS, do.ChangeCore) as script:
        script >> on.PanelNoticed(True) << Publish()
        script >> on.ApiProbed(1, "deadline") << Publish()
        script >> on.Done(do.ChangeCore(B)) << do.FollowConfig(B, changed=True)
        script >> done << Record(B, 1) << Answer()
        script >> on.PanelNoticed(True)
        script >> on.PanelNoticed(False) << Publish()


def test_a_silent_panel_may_mean_a_stop() -> None:
    with book(RUNNING) as script:
        script >> on.KeepAliveExpired(1, 10.0) << Record(None, 1) << LingerFor(10.0) << Commit() << Publish()
    assert script.state.state is State.LINGERING
    with book(FAILED) as script:
        script >> on.KeepAliveExpired(1, 10.0) << Record(None, 1) << EndCore() >> done << Commit() << Publish()
    assert script.state.state is State.IDLE


def test_a_start_while_the_stop_of_a_silent_panel_waits_is_a_call() -> None:
    with starting(RUNNING, SAME, do.ApplyUsers) as script:
        script >> applied() << do.FollowConfig(B, changed=False) >> done << Record(B, 1) << Answer()
        script >> on.KeepAliveExpired(1, 10.0)
    assert (script.state.state, script.state.desired) == (State.RUNNING, B)


# --- maintenance -----------------------------------------------------------------------------------------------------


def test_the_core_is_exchanged() -> None:
    with exchanging(RUNNING) as script:
        script >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << LearnVersion() << Record(A, 2) << Commit() << Publish() << Answer()
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


def exchanging(life: Life) -> Book:
    """Up to where the change is made."""
    return book(life) >> on.ExchangeRequested() << Publish() << EndCore() >> done << do.MakeChange()


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


@pytest.mark.parametrize("life", [IDLE, FAILED])
def test_with_nothing_to_run_only_the_change_is_made(life: Life) -> None:
    with book(life) as script:
        script >> on.ExchangeRequested() << do.MakeChange() >> done << LearnVersion() << Publish() << Answer()
    assert script.state == life
    with book(life) as script:
        script >> on.ExchangeRequested() << do.MakeChange() >> failed("no") << Publish() << told("no")
    assert script.state == life


def test_an_exchange_ends_a_lingering_core() -> None:
    with book(LINGERING) as script:
        script >> on.ExchangeRequested() << CancelTimer() << EndCore() >> done << do.MakeChange()
        script >> done << LearnVersion() << Publish() << Answer()
    assert (script.state.state, script.state.core) == (State.IDLE, None)


def test_an_exchange_while_recovering_comes_before_the_retry() -> None:
    with book(RECOVERING) as script:
        script >> on.ExchangeRequested() << CancelTimer() << Publish() << EndCore() >> done << do.MakeChange()
        script >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << LearnVersion() << Record(A, 2) << Commit() << Publish() << Answer()
        script >> on.RetryDue()
    assert script.state.state is State.RUNNING


@pytest.mark.parametrize("life", [RUNNING, LINGERING, RECOVERING, FAILED], ids=lambda life: str(life.state))
def test_a_hard_reset(life: Life) -> None:
    with book(life) as script:
        script >> on.ResetRequested() << Record(None, 1)
        if life.timer:
            script << CancelTimer()
        script << EndCore() >> done << do.ForgetState() >> done << Commit() << Publish() << Answer()
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)


def test_a_hard_reset_of_nothing() -> None:
    with book(IDLE) as script:
        script >> on.ResetRequested() << Record(None, 0) << do.ForgetState()
        script >> failed("a fault") << Commit() << Publish() << told("a fault")
    assert script.state.state is State.IDLE


# --- a new supervisor, and the end of one ----------------------------------------------------------------------------


def test_a_new_supervisor_finds_nothing() -> None:
    with book(IDLE) as script:
        script >> on.SupervisorStarted(None, 0) << do.FindCore(None) >> found(Found.NOTHING) << Publish()
    assert script.state == IDLE


def test_a_new_supervisor_takes_over_its_own_core() -> None:
    with book(IDLE) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A)
        script >> found(Found.MATCHING) << Publish() << do.TakeOverCore(A)
        assert script.state.state is State.STARTING
        script >> done << Record(A, 7) << Commit() << Publish()
        script >> on.CoreDied(7, None, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code None")
        script << Commit() << Publish()


def test_a_core_that_cannot_be_taken_over_makes_room_for_a_new_one() -> None:
    with book(IDLE) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A)
        script >> found(Found.MATCHING) << Publish() << do.TakeOverCore(A)
        script >> failed("deadline") << EndCore() >> done << RetryLater(0.0, "deadline") << Commit() << Publish()
        assert (script.state.state, script.state.core) == (State.RECOVERING, None)
        script >> on.RetryDue() << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 8) << Commit() << Publish()
    assert script.state.state is State.RUNNING


def test_a_core_with_another_config_is_ended() -> None:
    with book(IDLE) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A) >> found(Found.OTHER) << Publish() << EndCore()
        script >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 8) << Commit() << Publish()
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


@pytest.mark.parametrize("what", [Found.MATCHING, Found.OTHER])
def test_a_core_that_must_not_run_is_ended(what: Found) -> None:
    with book(IDLE) as script:
        script >> on.SupervisorStarted(None, 7) << do.FindCore(None) >> found(what) << EndCore() >> done << Publish()
    assert (script.state.state, script.state.core) == (State.IDLE, None)


def test_a_new_supervisor_whose_core_does_not_come_up() -> None:
    with book(IDLE) as script:
        script >> on.SupervisorStarted(A, 7) << do.FindCore(A) >> found(Found.NOTHING) << Publish() << do.StartCore(A)
        script >> failed("no memory") << RetryLater(0.0, "no memory") << Commit() << Publish()
    assert (script.state.state, script.state.desired) == (State.RECOVERING, A)


@pytest.mark.parametrize("life", [IDLE, RUNNING, LINGERING, RECOVERING, FAILED], ids=lambda life: str(life.state))
def test_a_shutdown_ends_the_core_and_keeps_what_has_to_run(life: Life) -> None:
    with book(life) as script:
        script >> on.ShutdownRequested()
        if life.timer:
            script << CancelTimer()
        script << EndCore() >> done << Answer()
    assert (script.state.desired, script.state.core) == (life.desired, None)


# --- what was broken off, and faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [do.TakeInUsers, do.RenderConfig, do.EndCore, do.StartCore, do.CompleteCore])
@pytest.mark.parametrize("life", [IDLE, RUNNING, LINGERING, RECOVERING, FAILED], ids=lambda life: str(life.state))
def test_a_stop_after_a_start_that_was_broken_off(life: Life, where: type[Action]) -> None:
    with starting(life, NEW, where) as script:
        script.state = replace(script.state)
        script >> on.StopRequested(10.0) << Record(None, script.state.core_run) << EndCore() >> done << Answer()
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)


@pytest.mark.parametrize("where", [do.TakeInUsers, do.ApplyUsers, do.FollowConfig])
def test_a_start_after_one_that_was_broken_off_is_a_new_core(where: type[Action]) -> None:
    reason = Decision(StartStrategy.NEW_CORE, "what was under way was broken off")
    with starting(RUNNING, SAME, where) as script:
        script >> on.StartRequested(A, SAME) << WarmUp() << do.CheckConfig(A, by_core=True)
        script >> done << count(reason) << do.TakeInUsers(A, everyone=True)
        script.skip_to(do.CompleteCore, done)
        script >> done << Record(A, 2) << DiscardRunner() << Answer()
    assert (script.state.state, script.state.desired, script.state.core) == (State.RUNNING, A, A)


def test_a_refused_start_after_one_that_was_broken_off_restores_what_has_to_run() -> None:
    with starting(RUNNING, NEW, do.EndCore) as script:
        script >> on.StartRequested(B, None) << WarmUp() << do.CheckConfig(B, by_core=True)
        script >> failed("no") << EndCore() >> done << do.StartCore(A) >> done << do.CompleteCore(A)
        script >> done << Record(A, 2) << DiscardRunner() << told("no; the previous core was restored")
    assert (script.state.state, script.state.core) == (State.RUNNING, A)


def test_a_death_after_something_that_was_broken_off() -> None:
    with starting(RUNNING, NEW, do.RenderConfig) as script:
        script >> on.CoreDied(1, 255, AT) << ReapCore() << RetryLater(0.0, "the core ended with exit code 255")
        script << Commit() << Publish()
    with starting(IDLE, None, do.CompleteCore) as script:
        script >> on.CoreDied(1, 255, AT) << ReapCore() << Commit() << Publish()
    assert (script.state.state, script.state.desired, script.state.core) == (State.IDLE, None, None)
    with (book(LINGERING) >> on.LingerEnded()).skip_to(do.EndCore, done) as script:
        script >> on.CoreDied(1, 255, AT) << EndCore() >> done << Commit() << Publish()
    assert script.state.state is State.IDLE


def test_an_exchange_after_something_that_was_broken_off() -> None:
    with starting(IDLE, None) as script:
        script >> on.ExchangeRequested() << EndCore() >> done << do.MakeChange()
        script >> done << LearnVersion() << Publish() << Answer()
    assert script.state.state is State.IDLE
    with (book(FAILED) >> on.ExchangeRequested()).skip_to(do.MakeChange, done) as script:
        script >> on.ExchangeRequested() << EndCore() >> done << do.MakeChange()
        script >> done << LearnVersion() << Publish() << Answer()
    assert script.state.state is State.FAILED


@pytest.mark.parametrize(
    "event",
    [on.Done(do.EndCore()), on.Done(do.StartCore(B)), on.Failed(do.ProbeCore(), NodeError("x"), AT)],
    ids=["stray", "other spec", "other kind"],
)
def test_an_outcome_that_nobody_waits_for_is_a_fault_and_changes_nothing(event: Event) -> None:
    for script in (book(IDLE), starting(RUNNING, NEW)):
        before = script.state
        with pytest.raises(TransitionError):
            script >> event
        assert script.state is before


@pytest.mark.parametrize("event", [Event(), on.Request()])
def test_an_event_that_is_not_known_is_a_fault(event: Event) -> None:
    with pytest.raises(TransitionError):
        transition(IDLE, event)
