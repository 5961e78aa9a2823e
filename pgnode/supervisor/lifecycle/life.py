"""What the machine knows of the node, and the moves that several of its tasks share. Pure."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from pgnode.supervisor.lifecycle.actions import (
    Action,
    CancelTimer,
    CompleteCore,
    GiveUp,
    Question,
    Record,
    RetryLater,
    StartCore,
)
from pgnode.supervisor.lifecycle.events import Moment, Outcome
from pgnode.supervisor.lifecycle.states import State, TransitionError, Trigger, next_state
from pgnode.supervisor.processes.restart_policy import GiveUp as Verdict
from pgnode.supervisor.processes.restart_policy import RestartPolicy

if TYPE_CHECKING:
    from pgnode.supervisor.lifecycle.run_spec import RunSpec


class Task(Protocol):
    """Something that takes several actions: what waits for an outcome, and what comes then."""

    @property
    def awaiting(self) -> Question:
        """The action whose outcome is next."""

    def resume(self, life: Life, outcome: Outcome) -> Transition:
        """Go on with the outcome of :attr:`awaiting`."""


@dataclass(frozen=True, slots=True)
class Life:
    """Everything that decisions about the life of the node depend on."""

    state: State = State.RESTORING
    #: What has to run; None when nothing has.
    desired: RunSpec | None = None
    #: What the core runs, where there is one; also after a stop, for as long as the core lingers.
    core: RunSpec | None = None
    #: Number of cores started since the state folder was made.
    core_run: int = 0
    #: Why the core's API did not answer the last time, "" when it did.
    api_error: str = ""
    #: The panel has been silent for longer than its keep_alive.
    panel_away: bool = False
    #: Rises whenever somebody decides what has to run.
    decisions: int = 0
    #: RetryDue or LingerEnded will come.
    timer: bool = False
    #: A start failed while the core lingered: it is as desired as it was before the stop, though callers see none.
    held: bool = False
    #: Why it is not known what has to run; "" where it is. A core that was found then goes on as if it lingered, and is not
    #: brought back, since nobody knows its users.
    unknown: str = ""
    #: Cores that were killed since they hung.
    hangs: int = 0
    #: Cores that ended by themselves, those that hung among them.
    deaths: int = 0
    #: Why the last core ended that nobody stopped, or why it was not brought back the last time; "" for none.
    last_end: str = ""
    #: When that was, monotonic seconds.
    last_end_at: float = 0.0
    #: How often the core was given up, since it did not stay up; each try that changed nothing counts.
    given_up: int = 0
    #: When a core that was given up is tried again, monotonic seconds.
    next_try_at: float = 0.0
    #: Why the core is being killed; "" while it is not.
    killed_for: str = ""
    #: Never changed in place.
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    #: What is under way.
    task: Task | None = None

    def move(self, trigger: Trigger) -> Life:
        """Change the state. Raises TransitionError."""
        return replace(self, state=next_state(self.state, trigger))

    def desire(self, spec: RunSpec | None) -> Life:
        """Decide what has to run."""
        return replace(self, desired=spec, decisions=self.decisions + 1, held=False, unknown="")

    def hold(self, spec: RunSpec) -> Life:
        """Let a core go on of which nobody knows whether it has to run; a start takes it over. Begins between two states."""
        return replace(
            self.move(Trigger.CORE_READY).move(Trigger.STOP_REQUESTED), desired=None, core=spec, held=True, timer=False
        )

    def take_back_stop(self) -> Life:
        """Make what lingers what has to run."""
        return self.desire(self.core).move(Trigger.START_REQUESTED)

    @property
    def record(self) -> Record:
        """What the store has to know."""
        return Record(self.core if self.held else self.desired, self.core_run)

    @property
    def is_known(self) -> bool:
        """Whether it is known if a core runs; a new supervisor finds that out first, and takes over the one that does."""
        return self.state is not State.RESTORING

    @property
    def core_serves(self) -> bool:
        """Whether a core runs as desired, and its API answers; also one that is being taken over."""
        return self.state in (State.RUNNING, State.RESTORING) and self.core is not None and not self.api_error

    @property
    def needs_core(self) -> bool:
        """Whether a core runs or is being brought back; one that was given up waits for its next try."""
        return self.desired is not None and self.state is not State.FAILED

    @property
    def wants_core(self) -> bool:
        """Whether a core has to run, whatever became of it."""
        return self.desired is not None


#: What the machine makes of an event.
Transition = tuple[Life, tuple[Action, ...]]


def ask(life: Life, task: Task, *before: Action) -> Transition:
    """Go on with ``task``, which waits for an outcome; ``before`` is done first."""
    return replace(life, task=task), (*before, task.awaiting)


def finish(life: Life, *actions: Action) -> Transition:
    """End what is under way."""
    return replace(life, task=None), actions


def unexpected(life: Life, what: object) -> TransitionError:
    """Make the error for an outcome that nobody waits for."""
    return TransitionError(life.state, what)


def cancel_timer(life: Life) -> Transition:
    """Cancel the RetryDue or LingerEnded that is to come."""
    return (replace(life, timer=False), (CancelTimer(),)) if life.timer else (life, ())


def core_gone(life: Life) -> Life:
    """Note that there is no core."""
    return replace(life, core=None, held=False)


def core_started(life: Life, started: StartCore) -> tuple[Life, CompleteCore]:
    """Note that a new core runs; returns what is still to be done with it."""
    after = replace(life, core=started.spec, core_run=life.core_run + 1, api_error="", killed_for="")
    return after, CompleteCore(started.spec)


def forgive(life: Life) -> Life:
    """Forget earlier deaths of cores: somebody asked for a new start."""
    policy = copy.deepcopy(life.policy)
    policy.reset()
    return replace(life, policy=policy)


def recover(life: Life, exit_code: int | None, reason: str, at: Moment) -> Transition:
    """Decide what to do about a missing core: bring it back after a pause, or give it up until the next try."""
    life = replace(core_gone(life).move(Trigger.CORE_DIED), last_end=reason, last_end_at=at.now)
    policy = copy.deepcopy(life.policy)
    decision = policy.died(at.now, exit_code, at.chance)
    life = replace(life, policy=policy, timer=True)
    if isinstance(decision, Verdict):
        pause = decision.pause_seconds
        life = replace(life.move(Trigger.GAVE_UP), given_up=life.given_up + 1, next_try_at=at.now + pause)
        return life, (GiveUp(pause, reason, decision.reason, decision.again),)
    return life, (RetryLater(decision.delay_seconds, reason),)
