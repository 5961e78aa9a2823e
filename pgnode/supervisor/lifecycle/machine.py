"""The life of the node: ``(life, event) -> (life, actions)``. Pure; whatever decides about the life of the node is decided here.

The shell (:mod:`pgnode.supervisor.lifecycle.core_lifecycle`) carries the actions out, in order, and tells the machine how those
with an outcome ended. A request that takes several actions becomes a task (``start_task``, ``tasks``), which knows what comes
next. The shell does one request at a time; one that finds a task under way knows that this task was interrupted, and recovers
from it.
"""

from __future__ import annotations

from dataclasses import replace

from pgnode.errors import UnavailableError
from pgnode.supervisor.lifecycle.actions import (
    Action,
    Answer,
    CheckConfig,
    Commit,
    EndCore,
    FindCore,
    ForgetState,
    KillCore,
    LingerFor,
    MakeChange,
    Publish,
    ReapCore,
    StartCore,
    WarmUp,
)
from pgnode.supervisor.lifecycle.events import (
    ApiProbed,
    CoreDied,
    CoreHung,
    Event,
    ExchangeRequested,
    KeepAliveExpired,
    LingerEnded,
    Moment,
    News,
    Outcome,
    PanelNoticed,
    Request,
    ResetRequested,
    RetryDue,
    ShutdownRequested,
    StartRefused,
    StartRequested,
    StopRequested,
    SupervisorStarted,
)
from pgnode.supervisor.lifecycle.life import (
    Life,
    Transition,
    ask,
    cancel_timer,
    core_gone,
    finish,
    forgive,
    recover,
)
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.start_task import StartTask, choose_strategy, start_failed, take_in
from pgnode.supervisor.lifecycle.states import WITH_CORE, State, TransitionError, Trigger
from pgnode.supervisor.lifecycle.tasks import ExchangeTask, RecoverTask, ResetTask, RestoreTask, ShutdownTask, StopTask
from pgnode.xray.config.diff import Decision, StartStrategy
from pgnode.xray.config.log_section import LogSection

_QUIETLY: tuple[Action, ...] = (Commit(), Publish())


def transition(life: Life, event: Event) -> Transition:
    """Decide what follows from an event.

    Args:
        life: What is known so far; it is not changed.
        event: What happened.

    Returns:
        What is known now, and what is to be done, in order.

    Raises:
        TransitionError: The event has no meaning now, which is a fault of the node. ``life`` holds as it was.
    """
    if isinstance(event, Outcome):
        if life.task is None or event.action != life.task.awaiting:
            raise TransitionError(life.state, event)
        return life.task.resume(life, event)
    if isinstance(event, News):
        return _note(life, event)
    if not isinstance(event, Request):
        raise TransitionError(life.state, event)
    return _request(life, event)


def _note(life: Life, news: News) -> Transition:
    match news:
        case ApiProbed(core_run, error) if life.state is State.RUNNING and core_run == life.core_run:
            return (life, ()) if error == life.api_error else (replace(life, api_error=error), (Publish(),))
        case PanelNoticed(away) if away != life.panel_away:
            return replace(life, panel_away=away), (Publish(),)
    return life, ()


def _request(life: Life, request: Request) -> Transition:
    match request:
        case SupervisorStarted(desired, core_run):
            life = replace(life, state=State.RESTORING, desired=desired, core_run=core_run)
            return ask(life, RestoreTask(FindCore(desired)))
        case StartRequested():
            return _start(life, request)
        case StartRefused(error):
            return start_failed(life, error) if life.task is None else (life, (Answer(error),))
        case StopRequested(linger_seconds):
            return _stop(life, linger_seconds, (Answer(),))
        case KeepAliveExpired(decisions, linger_seconds):
            return (life, ()) if decisions != life.decisions else _stop(life, linger_seconds, _QUIETLY)
        case ExchangeRequested():
            return _exchange(life)
        case ResetRequested():
            return _reset(life)
        case CoreDied(core_run, exit_code, at):
            return _core_died(life, exit_code, at) if core_run == life.core_run else (life, ())
        case CoreHung(core_run, silent_seconds):
            if core_run != life.core_run or life.core is None:
                return life, ()
            # Its end is noticed as any other core's is.
            why = f"the core hung for {silent_seconds:.0f} s and was killed"
            return replace(life, hangs=life.hangs + 1, killed_for=why), (KillCore(silent_seconds),)
        case RetryDue():
            return _retry(life)
        case LingerEnded():
            return _linger_ended(life)
        case ShutdownRequested():
            life, cancelled = cancel_timer(life)
            return ask(life, ShutdownTask(EndCore()), *cancelled)
    raise TransitionError(life.state, request)


def _start(life: Life, request: StartRequested) -> Transition:
    new = request.spec
    interrupted = life.task is not None
    decision = Decision(StartStrategy.NEW_CORE, "no core runs")
    if interrupted:
        decision = Decision(StartStrategy.NEW_CORE, "what was under way was interrupted")
    elif life.state in WITH_CORE and life.core is not None and request.diff is not None:
        decision = choose_strategy(life, request.diff)
    check = CheckConfig(new, by_core=life.state is not State.IDLE)
    # After an interruption the state of the core is unknown, so it cannot just go on.
    task = StartTask(new, decision, check, touched=interrupted)
    if decision.strategy is StartStrategy.SAME and not _has_other_log_options(life.core, new):
        return take_in(life, task)
    return ask(life, task, *([WarmUp()] if decision.strategy is StartStrategy.NEW_CORE else []))


def _has_other_log_options(running: RunSpec | None, new: RunSpec) -> bool:
    """Whether a core has to say what it thinks of a log that no core was started with: the next one will be."""
    return running is not None and _log_options(running) != _log_options(new)


def _log_options(spec: RunSpec) -> str:
    return LogSection.of(spec.base.document.get("log")).rest


def _stop(life: Life, linger_seconds: float, told: tuple[Action, ...]) -> Transition:
    if life.task is None and life.state in (State.IDLE, State.LINGERING) and not life.held:
        return life.move(Trigger.STOP_REQUESTED), told
    life, cancelled = cancel_timer(life.desire(None))
    may_linger = life.task is None and linger_seconds > 0 and not life.api_error
    if life.state in (State.RUNNING, State.LINGERING):
        life = life.move(Trigger.STOP_REQUESTED)
        if may_linger:
            return finish(replace(life, timer=True), life.record, LingerFor(linger_seconds), *told)
        life = life.move(Trigger.LINGER_ENDED)
    else:
        life = _to_stopping(life)
    return ask(life, StopTask(EndCore(), told), life.record, *cancelled)


def _to_stopping(life: Life) -> Life:
    """Begin to end the core, whatever the state is."""
    if life.state in WITH_CORE:
        if life.state is State.RUNNING:
            life = life.move(Trigger.STOP_REQUESTED)
        return life.move(Trigger.LINGER_ENDED)
    # Idle with a task: a start or a restart was interrupted before it changed anything.
    return life if life.state is State.IDLE else life.move(Trigger.STOP_REQUESTED)


def _exchange(life: Life) -> Transition:
    interrupted = life.task is not None
    if life.unknown and life.core is not None and not interrupted:
        text = f"the core cannot be exchanged, for its config is not known ({life.unknown}): start the node first"
        return life, (Answer(UnavailableError(text)),)
    cancelled: tuple[Action, ...] = ()
    if life.state is not State.FAILED:
        life, cancelled = cancel_timer(life)  # of a core that lingers, or is to be brought back
    if life.held and not interrupted:
        life = life.take_back_stop()
    if life.state is State.LINGERING:
        # The next start must not take this one over.
        return ask(life.move(Trigger.LINGER_ENDED), ExchangeTask(EndCore()), *cancelled)
    if not life.needs_core and interrupted:
        return ask(life if life.state is State.FAILED else _to_stopping(life), ExchangeTask(EndCore()))
    if not life.needs_core:
        return ask(life, ExchangeTask(MakeChange()))
    life = forgive(life.move(Trigger.START_REQUESTED))
    return ask(life, ExchangeTask(EndCore()), *cancelled, Publish())


def _reset(life: Life) -> Transition:
    idle = life.state is State.IDLE and life.task is None
    life, cancelled = cancel_timer(forgive(life.desire(None)))
    if idle:
        return ask(life, ResetTask(ForgetState()), life.record)
    return ask(_to_stopping(life), ResetTask(EndCore()), life.record, *cancelled)


def _core_died(life: Life, exit_code: int | None, at: Moment) -> Transition:
    if life.core is None:
        return life, ()
    reason = life.killed_for or f"the core ended with exit code {exit_code}"
    life = replace(life, deaths=life.deaths + 1, last_end=reason, last_end_at=at.now, killed_for="")
    if life.held and not life.unknown and life.task is None:
        life = life.take_back_stop()
    if life.state is State.LINGERING:
        life, cancelled = cancel_timer(core_gone(life).move(Trigger.CORE_DIED))
        return finish(life, ReapCore(), *cancelled, *_QUIETLY)
    if life.state is State.STOPPING:
        return ask(core_gone(life), StopTask(EndCore(), _QUIETLY))
    if life.desired is None:
        # A first start was interrupted before anything had to run.
        return finish(core_gone(life).move(Trigger.START_FAILED), ReapCore(), *_QUIETLY)
    life, decided = recover(life, exit_code, reason, at)
    return finish(life, ReapCore(), *decided, *_QUIETLY)


def _retry(life: Life) -> Transition:
    desired = life.desired
    if life.state not in (State.RECOVERING, State.FAILED) or desired is None:
        return life, ()
    if life.state is State.FAILED:
        life = life.move(Trigger.TRIED_AGAIN)
    return ask(replace(life, timer=False), RecoverTask(StartCore(desired)))


def _linger_ended(life: Life) -> Transition:
    if life.state is not State.LINGERING or life.held:
        return life, ()
    return ask(replace(life.move(Trigger.LINGER_ENDED), timer=False), StopTask(EndCore(), _QUIETLY))
