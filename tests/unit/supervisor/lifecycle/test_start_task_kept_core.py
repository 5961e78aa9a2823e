"""The life of the node: a start that keeps the core, by changes of users or of parts, and its fallbacks."""

from __future__ import annotations

import pytest

from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle import events as on
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
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
from pgnode.testing.run_specs import make_run_spec
from pgnode.xray.config.diff import Decision, StartStrategy
from tests.unit.supervisor.lifecycle.scripts import (
    AT,
    HOT_CHANGE,
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


def test_the_same_config_changes_users_only() -> None:
    again = make_run_spec("a", keep_alive_seconds=5)
    with script_of(RUNNING) as script:
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
    with script_of(RUNNING) as script:
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
        script >> failed("a fault") << do.CountFailedChange(Equal("a fault")) << do.RenderConfig(B)
        assert script.state.state is State.STARTING
        script >> done << EndCore() >> done << do.StartCore(B, rendered=True) >> done << do.CompleteCore(B)
        script >> done << Record(B, 2) << DiscardRunner() << Answer()
    assert (script.state.state, script.state.core) == (State.RUNNING, B)


def test_parts_of_the_running_core_are_changed() -> None:
    with script_of(RUNNING) as script:
        (
            script
            >> on.StartRequested(B, HOT_CHANGE)
            << do.CheckConfig(B, by_core=True)
            >> done
            << do.PrepareHotChange(B, HOT_CHANGE)
            >> done
            << count(HOT_CHANGE)
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
    decision = Decision(StartStrategy.NEW_CORE, "inbound 'b' added, but not in the running core: no scratch core")
    with starting(RUNNING, HOT_CHANGE, do.PrepareHotChange) as script:
        script >> failed("no scratch core") << WarmUp() << count(decision) << do.TakeInUsers(B, everyone=True)
        script >> done << do.RenderConfig(B) >> done << EndCore() >> done << do.StartCore(B, rendered=True)
        script >> done << do.CompleteCore(B) >> done << Record(B, 2) << DiscardRunner() << Answer()


def half_changed() -> Script:
    script = starting(RUNNING, HOT_CHANGE, do.ChangeCore)
    return script >> failed("inbound 'x' is still there") << do.CountFailedChange(Equal("inbound 'x' is still there"))


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
