"""The machine's task for a start: from whatever runs to what is asked for, by the strategy that disturbs users least. Pure.

With the same base config only users are reconciled. A config that differs only in entries which a running core can change is
a hot change. Anything else needs a new core. A new core that does not come up is replaced by the previous one, where there
was one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgnode.errors import NodeError, StartFailedError
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
    ApplyUsers,
    ChangeCore,
    CheckConfig,
    CompleteCore,
    CountFailedChange,
    CountStart,
    DiscardRunner,
    EndCore,
    FollowConfig,
    PrepareHotChange,
    ProbeCore,
    Question,
    RenderConfig,
    ReturnUsers,
    StartCore,
    TakeInUsers,
    WarmUp,
)
from pgnode.supervisor.lifecycle.events import Done, Failed, Outcome, UsersApplied
from pgnode.supervisor.lifecycle.life import (
    Life,
    Transition,
    ask,
    cancel_timer,
    core_gone,
    core_started,
    finish,
    forgive,
    recover,
    unexpected,
)
from pgnode.supervisor.lifecycle.states import State, Trigger
from pgnode.xray.config.diff import Decision, StartStrategy

if TYPE_CHECKING:
    from pgnode.supervisor.lifecycle.run_spec import RunSpec


def choose_strategy(life: Life, diff: Decision) -> Decision:
    """Choose how to get from the core that runs to what is asked for."""
    if life.api_error and diff.strategy is not StartStrategy.SAME:
        return Decision(StartStrategy.NEW_CORE, f"the core's API does not answer: {life.api_error}")
    return diff


@dataclass(frozen=True, slots=True)
class StartTask:
    """A start that is under way."""

    new: RunSpec
    decision: Decision
    awaiting: Question
    #: The state that the start found.
    before: State = State.IDLE
    #: What is brought back when the new core does not come up.
    fallback: RunSpec | None = None
    #: The core was changed or ended.
    touched: bool = False
    #: The core did not answer for some users, who are tried again later.
    unanswered: NodeError | None = None
    #: The core that lingered has to be replaced, for it does not answer.
    replacing: bool = False
    #: Why the new core did not come up.
    failure: NodeError | None = None

    def resume(self, life: Life, outcome: Outcome) -> Transition:
        """Go on."""
        match self.awaiting, outcome:
            case CheckConfig(), Done() if self.replacing:
                return self._ask(life, RenderConfig(self.new))
            case CheckConfig(), Failed(error=error) if self.replacing:
                return self._not_begun(life, error)
            case CheckConfig(), Done() if self.decision.strategy is StartStrategy.HOT_CHANGE:
                return self._ask(life, PrepareHotChange(self.new, self.decision))
            case ((CheckConfig() | PrepareHotChange()), Done()):
                return take_in(life, self)
            case CheckConfig(), Failed(error=error) if not self.touched:
                return start_failed(life, error, DiscardRunner())
            case CheckConfig(), Failed(error=error):
                # The start before was interrupted, so what runs cannot stay.
                life = life.move(Trigger.START_REQUESTED)
                return ask(life, replace(self, awaiting=EndCore(), failure=error, fallback=life.desired))
            case PrepareHotChange(), Failed(error=error):
                reason = f"{self.decision.reason}, but not in the running core: {error.text}"
                task = replace(self, decision=Decision(StartStrategy.NEW_CORE, reason))
                life, actions = take_in(life, task)
                return life, (WarmUp(), *actions)
        if self.decision.strategy is StartStrategy.NEW_CORE or self.touched:
            return self._new_core(life, outcome)
        return self._same_core(life, outcome)

    def _ask(self, life: Life, action: Question) -> Transition:
        return ask(life, replace(self, awaiting=action))

    # --- the core stays -------------------------------------------------------------------------------------------

    def _same_core(self, life: Life, outcome: Outcome) -> Transition:
        match self.awaiting, outcome:
            case TakeInUsers(), Done() if self.decision.strategy is StartStrategy.SAME:
                return self._ask(life, ApplyUsers(self.new))
            case TakeInUsers(), Done():
                return self._ask(life, ChangeCore(self.new))
            case ((TakeInUsers() | ApplyUsers() | ChangeCore()), Failed(error=error)):
                return self._replace(life, error)
            case ApplyUsers(), UsersApplied(unanswered=unanswered):
                return replace(self, unanswered=unanswered)._kept(life)
            case ChangeCore(), Done():
                return self._kept(life)
            case FollowConfig(), _ if self.before is not State.LINGERING:
                return finish(life, life.record, Answer(self.unanswered))
            case FollowConfig(), _ if self.unanswered is None:
                # It may have hung since the stop, and nobody has been told yet that it runs.
                return self._ask(life, ProbeCore())
            case FollowConfig(), _ if self.unanswered is not None:
                return self._replace(life, self.unanswered)
            case ProbeCore(), Failed(error=error):
                return self._replace(life, error)
            case ProbeCore(), Done():
                life = life.move(Trigger.CORE_READY)
                return finish(life, life.record, Answer())
        raise unexpected(life, outcome)

    def _kept(self, life: Life) -> Transition:
        """Note that the core that runs is what was asked for."""
        changed = self.decision.strategy is StartStrategy.HOT_CHANGE
        return self._ask(replace(life, core=self.new).desire(self.new), FollowConfig(self.new, changed))

    def _replace(self, life: Life, error: NodeError) -> Transition:
        """Go on to a new core: the one that runs is not what was asked for, nor what it was.

        One that lingered and does not answer may serve users all the same. Nobody has checked yet whether the config would come
        up, since it was the running one; so that is tried before the core is ended.
        """
        counted = CountFailedChange(error)
        if self.before is State.LINGERING and self.decision.strategy is StartStrategy.SAME:
            decision = Decision(StartStrategy.NEW_CORE, f"the core that lingered does not answer: {error.text}")
            check = CheckConfig(self.new, by_core=True)
            task = replace(self, awaiting=check, decision=decision, unanswered=None, replacing=True)
            return ask(forgive(replace(life, core=self.fallback)), task, counted)
        if life.state is State.RUNNING:
            life = life.move(Trigger.START_REQUESTED)
        task = replace(self, awaiting=RenderConfig(self.new), touched=True)
        return ask(forgive(life), task, counted)

    # --- a new core -----------------------------------------------------------------------------------------------

    def _new_core(self, life: Life, outcome: Outcome) -> Transition:
        match self.awaiting, outcome:
            case TakeInUsers(), Done():
                return self._ask(forgive(life), RenderConfig(self.new))
            case RenderConfig(), Done():
                return ask(life, replace(self, awaiting=EndCore(), touched=True))
            case ((TakeInUsers() | RenderConfig()), Failed(error=error)):
                return self._not_begun(life, error)
            case EndCore(), _ if self.failure is None:
                return self._ask(core_gone(life), StartCore(self.new, rendered=True))
            case EndCore(), _ if self.failure is not None:
                return self._go_back(core_gone(life), self.failure)
            case StartCore() as started, Done():
                life, complete = core_started(life, started)
                return self._ask(life, complete)
            case StartCore(), Failed(error=error, at=at) if self.before is State.FAILED and self.fallback is not None:
                # That one did not stay up either, but perhaps it does now.
                life, decided = recover(life, None, error.text, at)
                return finish(life, ReturnUsers(), *decided, life.record, DiscardRunner(), Answer(error))
            case StartCore(), Failed(error=error) if self.failure is None:
                return self._go_back(life, error, ReturnUsers())
            case StartCore(), Failed(error=error, at=at) if self.failure is not None:
                text = f"{self.failure.text}; and the previous config did not come up either: {error.text}"
                life, decided = recover(life, None, error.text, at)
                return finish(life, *decided, life.record, DiscardRunner(), Answer(StartFailedError(text)))
            case CompleteCore(spec=spec), _:
                return self._up(life, spec)
        raise unexpected(life, outcome)

    def _up(self, life: Life, spec: RunSpec) -> Transition:
        life = life.desire(spec).move(Trigger.CORE_READY)
        error = None
        if self.failure is not None:
            error = StartFailedError(f"{self.failure.text}; the previous core was restored")
        return finish(life, life.record, DiscardRunner(), Answer(error))

    def _not_begun(self, life: Life, error: NodeError) -> Transition:
        """Go back after a failure, with the old core still there."""
        if not self.touched and self.before is State.RUNNING:
            return finish(life.move(Trigger.CORE_READY), ReturnUsers(), DiscardRunner(), Answer(error))
        if not self.touched and self.before is State.LINGERING and life.core is not None and life.unknown:
            return finish(life.hold(life.core), ReturnUsers(), DiscardRunner(), Answer(error))
        if not self.touched and self.before is State.LINGERING and life.core is not None:
            life = life.desire(life.core).move(Trigger.CORE_READY)
            return finish(life, ReturnUsers(), life.record, DiscardRunner(), Answer(error))
        return ask(life, replace(self, awaiting=EndCore(), failure=error, touched=True), ReturnUsers())

    def _go_back(self, life: Life, error: NodeError, *before: ReturnUsers) -> Transition:
        """Bring back what ran, or nothing: the new core is not there."""
        if self.fallback is not None:
            life = life.desire(self.fallback)
            return ask(life, replace(self, awaiting=StartCore(self.fallback), failure=error), *before)
        life = life.move(Trigger.START_FAILED).desire(None)
        return finish(life, *before, life.record, DiscardRunner(), Answer(error))


def take_in(life: Life, task: StartTask) -> Transition:
    """Make the start's users the desired ones: all checks passed."""
    before = life.state
    new_core = task.decision.strategy is StartStrategy.NEW_CORE
    # One that was stopped is something to come back to, until its core has ended.
    fallback = life.core if before is State.LINGERING else life.desired
    if life.unknown:
        # Nobody knows its users, and perhaps not even its config.
        fallback = None
    # Somebody asked for a start, whichever core it leads to.
    life, cancelled = cancel_timer(forgive(replace(life, held=False)))
    if new_core or before is State.LINGERING:
        life = life.move(Trigger.START_REQUESTED)
    users = TakeInUsers(task.new, everyone=task.decision.strategy is not StartStrategy.SAME)
    return ask(
        life,
        replace(task, before=before, fallback=fallback, awaiting=users),
        CountStart(task.decision),
        *cancelled,
    )


def start_failed(life: Life, error: NodeError, *before: Action) -> Transition:
    """End a start that failed before anything was touched: whatever runs goes on.

    A core that lingers is as desired as it was before the stop, and no time ends it any more: a panel that stops the node and
    then sends a config that is refused, again and again, must not cost anybody the connection. A stop that nothing follows
    ends it.
    """
    if life.state is State.LINGERING and life.core is not None:
        life, cancelled = cancel_timer(replace(life, held=True))
        before = (*cancelled, *([] if life.unknown else [life.record]), *before)
    return finish(life, *before, Answer(error))
