"""All tasks of the machine but the start: what comes after each outcome. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgnode.errors import NodeError, StartFailedError
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
    Commit,
    CompleteCore,
    EndCore,
    FindCore,
    ForgetState,
    LearnVersion,
    MakeChange,
    Publish,
    Question,
    RetryLater,
    StartCore,
    TakeOverCore,
    UndoChange,
    WatchCore,
)
from pgnode.supervisor.lifecycle.events import CoreFound, Done, Failed, Found, Outcome
from pgnode.supervisor.lifecycle.life import (
    Life,
    Transition,
    ask,
    core_gone,
    core_started,
    finish,
    forgive,
    recover,
    unexpected,
)
from pgnode.supervisor.lifecycle.states import State, Trigger

if TYPE_CHECKING:
    from pgnode.supervisor.lifecycle.run_spec import RunSpec


def ended(life: Life) -> Life:
    """Note that the core was ended; where that was the aim, nothing runs now."""
    life = core_gone(life)
    return life.move(Trigger.CORE_STOPPED) if life.state is State.STOPPING else life


@dataclass(frozen=True, slots=True)
class StopTask:
    """The core is being ended, and nothing has to run."""

    awaiting: Question
    #: How the end is told.
    told: tuple[Action, ...]

    def resume(self, life: Life, outcome: Outcome) -> Transition:
        """Go on. A core that could not be ended cannot be relied on either."""
        return finish(ended(life), *self.told)


@dataclass(frozen=True, slots=True)
class ShutdownTask:
    """The core is being ended with the supervisor; what has to run stays desired."""

    awaiting: Question

    def resume(self, life: Life, outcome: Outcome) -> Transition:
        """Go on."""
        return finish(core_gone(life), Answer())


@dataclass(frozen=True, slots=True)
class ResetTask:
    """Everything is being forgotten."""

    awaiting: Question

    def resume(self, life: Life, outcome: Outcome) -> Transition:
        """Go on."""
        if isinstance(self.awaiting, EndCore):
            return ask(ended(life), replace(self, awaiting=ForgetState()))
        error = outcome.error if isinstance(outcome, Failed) else None
        return finish(life, Commit(), Publish(), Answer(error))


@dataclass(frozen=True, slots=True)
class RecoverTask:
    """A core that died is being brought back."""

    awaiting: Question

    def resume(self, life: Life, outcome: Outcome) -> Transition:
        """Go on."""
        match self.awaiting, outcome:
            case StartCore() as started, Done():
                life, complete = core_started(life, started)
                return ask(life, RecoverTask(complete))
            case StartCore(), Failed(error=error, at=at):
                life, decided = recover(life, None, error.text, at)
                return finish(life, *decided, Commit(), Publish())
            case CompleteCore(), _:
                life = life.move(Trigger.CORE_READY)
                return finish(life, life.record, Commit(), Publish())
        raise unexpected(life, outcome)


@dataclass(frozen=True, slots=True)
class RestoreTask:
    """A new supervisor brings back what ran, or ends what must not run."""

    awaiting: Question
    #: Why a core that was taken over is ended again.
    failure: Failed | None = None

    def resume(self, life: Life, outcome: Outcome) -> Transition:
        """Go on."""
        match self.awaiting, outcome:
            case FindCore(), CoreFound():
                return self._found(replace(life, unknown=outcome.unknown), outcome.found, outcome.spec)
            case FindCore(), Failed():
                # Whatever was left, it cannot be taken over.
                return self._found(life, Found.OTHER, None)
            case TakeOverCore(), Done():
                return self._up(life)
            case TakeOverCore(), Failed():
                # It is not what is desired, so a new core takes its place.
                return ask(life, RestoreTask(EndCore(), outcome))
            case EndCore(), _:
                return self._ended(core_gone(life))
            case StartCore() as started, Done():
                life, complete = core_started(life, started)
                return ask(life, RestoreTask(complete))
            case StartCore(), Failed():
                return self._down(life, outcome)
            case CompleteCore(), _:
                return self._up(life)
        raise unexpected(life, outcome)

    @staticmethod
    def _found(life: Life, found: Found, spec: RunSpec | None) -> Transition:
        if found is Found.UNASKED and spec is not None:
            # Whatever the store lost, users lose nothing by it.
            return finish(life.hold(spec), WatchCore(spec), Publish())
        if spec is not None:
            life = replace(life, desired=spec, unknown="")
        desired = life.desired
        if desired is None:
            # What was stopped must not run for longer because of a crash.
            if found is Found.NOTHING:
                return finish(life.move(Trigger.NOTHING_TO_RUN), Publish())
            return ask(life, RestoreTask(EndCore()))
        if found is Found.MATCHING:
            # Workers may say from now on that a core runs; whatever needs its users waits until it is taken over.
            return ask(replace(life, core=desired), RestoreTask(TakeOverCore(desired)), Publish())
        next_step = StartCore(desired) if found is Found.NOTHING else EndCore()
        return ask(life.move(Trigger.START_REQUESTED), RestoreTask(next_step), Publish())

    def _ended(self, life: Life) -> Transition:
        if life.desired is None:
            return finish(life.move(Trigger.NOTHING_TO_RUN), Publish())
        if self.failure is not None:
            return self._down(life, self.failure)
        return ask(life, RestoreTask(StartCore(life.desired)))

    @staticmethod
    def _up(life: Life) -> Transition:
        life = life.move(Trigger.CORE_READY)
        return finish(life, life.record, Commit(), Publish())

    @staticmethod
    def _down(life: Life, failure: Failed) -> Transition:
        life, decided = recover(life, None, failure.error.text, failure.at)
        return finish(life, *decided, Commit(), Publish())


@dataclass(frozen=True, slots=True)
class ExchangeTask:
    """The core is ended, something is changed, and the core is started again; or nothing runs, and only the change is made."""

    awaiting: Question
    #: Why the core did not come up with the change.
    failure: NodeError | None = None
    #: Why the change could not be taken back.
    not_undone: NodeError | None = None

    def resume(self, life: Life, outcome: Outcome) -> Transition:
        """Go on."""
        match self.awaiting, outcome:
            case EndCore(), _:
                return ask(ended(life), ExchangeTask(MakeChange()))
            case MakeChange(), Done() if life.state is State.STARTING and life.desired is not None:
                return ask(life, ExchangeTask(StartCore(life.desired)))
            case MakeChange(), Done() if life.state is State.FAILED:
                # Perhaps that was what kept the core from staying up.
                retry = RetryLater(0.0, "what the core is made of was changed")
                return finish(replace(forgive(life), timer=True), retry, LearnVersion(), Publish(), Answer())
            case MakeChange(), Done():
                return finish(life, LearnVersion(), Publish(), Answer())
            case MakeChange() | StartCore(), Failed() if self.failure is None:
                return self._go_back(life, outcome)
            case UndoChange(), _ if life.desired is not None:
                not_undone = outcome.error if isinstance(outcome, Failed) else None
                return ask(life, replace(self, awaiting=StartCore(life.desired), not_undone=not_undone))
            case StartCore() as started, Done():
                life, complete = core_started(life, started)
                return ask(life, replace(self, awaiting=complete))
            case StartCore(), Failed(error=error, at=at):
                told = StartFailedError(f"{self._told}; the previous core did not come up either: {error.text}")
                life, decided = recover(life, None, error.text, at)
                return finish(life, *decided, LearnVersion(), Commit(), Publish(), Answer(told))
            case CompleteCore(), _:
                life = life.move(Trigger.CORE_READY)
                return finish(life, LearnVersion(), life.record, Commit(), Publish(), Answer(self._end))
        raise unexpected(life, outcome)

    def _go_back(self, life: Life, failed: Failed) -> Transition:
        if life.state is not State.STARTING:
            return finish(life, Publish(), Answer(failed.error))
        return ask(life, replace(self, awaiting=UndoChange(), failure=failed.error))

    @property
    def _end(self) -> NodeError | None:
        """Answer the caller, with a core that runs."""
        if self.failure is None:
            return None
        end = "the core was started all the same" if self.not_undone else "the previous core was restored"
        return StartFailedError(f"{self._told}; {end}")

    @property
    def _told(self) -> str:
        """Say why the core did not come up with the change."""
        first = self.failure.text if self.failure is not None else ""
        return f"{first}; the change could not be taken back: {self.not_undone.text}" if self.not_undone else first
