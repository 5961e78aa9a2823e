"""What the scripts of the machine share: lives to begin with, outcomes, starts up to some action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pgnode.errors import NodeError, StartFailedError
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle import events as on
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
    Publish,
)
from pgnode.supervisor.lifecycle.events import Event, Found, Moment
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.lifecycle.machine import transition
from pgnode.supervisor.lifecycle.states import State
from pgnode.testing.playbook import Playbook
from pgnode.testing.run_specs import make_run_spec
from pgnode.xray.config.diff import Decision, StartStrategy

A, B = make_run_spec("a"), make_run_spec("b")
AT = Moment(now=100.0, chance=0.5)
NEW = Decision(StartStrategy.NEW_CORE, "log changed")
NO_CORE = Decision(StartStrategy.NEW_CORE, "no core runs")
SAME = Decision(StartStrategy.SAME, "the base config is the running one")
HOT_CHANGE = Decision(StartStrategy.HOT_CHANGE, "inbound 'b' added")

#: A supervisor that has just begun.
BEGUN = Life()
IDLE = Life(State.IDLE)
RUNNING = Life(State.RUNNING, desired=A, core=A, core_run=1, decisions=1)
LINGERING = Life(State.LINGERING, core=A, core_run=1, decisions=2, timer=True)
RECOVERING = Life(State.RECOVERING, desired=A, core_run=1, decisions=1, timer=True)
FAILED = Life(State.FAILED, desired=A, core_run=1, decisions=1, timer=True)

Script = Playbook[Life, Event, Action]


def script_of(life: Life) -> Script:
    return Playbook(transition, life)


def done(action: Action) -> Event:
    """The outcome when all is well."""
    assert isinstance(action, do.Question), f"{action!r} has no outcome"
    return on.UsersApplied(action) if isinstance(action, do.ApplyUsers) else on.Done(action)


class Equal(NodeError):
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
    return Answer(Equal(text))


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


def starting(life: Life, diff: Decision | None, until: type[Action] = do.StartCore) -> Script:
    """A start of B, up to where that action is to be carried out."""
    return (script_of(life) >> on.StartRequested(B, diff)).skip_to(until, done)


def died(life: Life, times: int, at: float = AT.now) -> Life:
    """The core died so often in a row, and no retry was due yet."""
    for number in range(times):
        script = script_of(life) >> on.CoreDied(life.core_run, 255, Moment(at + number, 0.5))
        if number < times - 1:
            script.skip_to(Publish, done)
            script >> on.RetryDue()
            script.skip_to(do.CompleteCore, done)
            script >> done
        life = replace(script.state, core_run=1)
    return life
