"""Carries out what the machine decides, and tells it how that ended: processes, timers, the journal.

One request at a time, with the core lock held; a core that died, a pause that is over and maintenance take it themselves. What a
request brings along (users, a config that was read, something to exchange) is carried out by its :class:`Hands`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import structlog

from pgnode.errors import CoreNotStartedError, CoreUnavailableError, InternalError, NodeError
from pgnode.os_support.clock import Clock
from pgnode.os_support.fault_points import async_fault_point
from pgnode.store.changes import Journal
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle.events import (
    CoreDied,
    Done,
    Failed,
    LingerEnded,
    Moment,
    News,
    Outcome,
    Request,
    RetryDue,
)
from pgnode.supervisor.lifecycle.kept_spec import encode
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import State, TransitionError
from pgnode.supervisor.lifecycle.status import StatusBoard
from pgnode.supervisor.routing.core_routing import CoreRouting
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.traffic.inbound_stats import InboundStats
from pgnode.supervisor.users.full_config import render_config
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.sync import UserSync
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.config.inbound_counters import with_inbound_counters
from pgnode.xray.process.running import RunningCore

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)


class Hands(Protocol):
    """Carries out the actions that belong to one request."""

    async def carry_out(self, action: do.Action) -> Outcome | None:
        """Do it.

        Args:
            action: One that the shell does not do for every request.

        Returns:
            The outcome; None for done.

        Raises:
            NodeError: It was not done, or not to its end.
        """


class _NoHands:
    async def carry_out(self, action: do.Action) -> Outcome | None:
        raise NotImplementedError(f"nobody carries out {action!r}")


_NO_HANDS = _NoHands()


class CoreLifecycle:
    """At most one core. Belongs to the supervisor's loop.

    Args:
        settings: Time limits.
        life: The state of the node, which only this object changes.
        core: The core's process.
        users: Desired users, and the users in the core.
        routing: Desired rules, and the rules in the core.
        traffic: Polls the counters of a core that is about to be ended.
        status: Tells the workers.
        journal: Where the store's changes are noted.
        commit: Writes the journal to the store.
        core_lock: Held by whoever starts, stops or changes the core.
        settle_inbounds: Takes inbounds out of a new core where the node is being drained.
        inbound_stats: Decides whether a new core counts inbounds.
        clock: For pauses.
    """

    def __init__(
        self,
        settings: Settings,
        life: NodeLife,
        *,
        core: CoreController,
        users: UserSync,
        routing: CoreRouting,
        traffic: TrafficCollector,
        status: StatusBoard,
        journal: Journal,
        commit: Callable[[], Awaitable[object]],
        core_lock: asyncio.Lock,
        settle_inbounds: Callable[[], Awaitable[None]],
        inbound_stats: InboundStats,
        clock: Clock | None = None,
    ) -> None:
        self._settle_inbounds = settle_inbounds
        self._inbound_stats = inbound_stats
        self._settings = settings
        self._life = life
        self._core = core
        self._users = users
        self._routing = routing
        self._traffic = traffic
        self._status = status
        self._journal = journal
        self._commit = commit
        self._core_lock = core_lock
        self._clock = clock if clock is not None else Clock()
        #: Waits for the end of the core.
        self._watcher: asyncio.Task[None] | None = None
        #: Waits for the end of a pause.
        self._timer: asyncio.Task[None] | None = None
        #: The config of the last RenderConfig.
        self._rendered: str | None = None

    def __repr__(self) -> str:
        return f"CoreLifecycle({self._life!r})"

    # --- the machine ----------------------------------------------------------------------------------------------

    async def request(self, request: Request, hands: Hands = _NO_HANDS) -> None:
        """Carry out a request completely. The caller holds the core lock.

        Args:
            request: What is asked for.
            hands: Carries out what the request brings along.

        Raises:
            NodeError: What the machine answers to whoever asked.
        """
        outcome: Outcome | None = None
        answer = do.Answer()
        event: Request | Outcome | None = request
        while event is not None:
            outcome = None
            for action in self._apply(event):
                if isinstance(action, do.Answer):
                    answer = action
                elif isinstance(action, do.Question):
                    outcome = await self._ask(action, hands)
                else:
                    await self._do(action, hands)
            event = outcome
        if answer.error is not None:
            raise answer.error

    async def note(self, news: News) -> None:
        """Take note of something, at any time, also without the core lock."""
        for action in self._apply(news):
            await self._do(action, _NO_HANDS)

    def _apply(self, event: Request | Outcome | News) -> tuple[do.Action, ...]:
        before = self._life.state
        try:
            actions = self._life.apply(event)
        except TransitionError as error:
            # The next request recovers from it.
            log.exception("the life of the node has no answer", request=type(event).__name__)
            raise InternalError.of(error) from error
        if self._life.state is State.RUNNING and before is not State.RUNNING:
            self._traffic.core_ready()
        return actions

    async def _ask(self, question: do.Question, hands: Hands) -> Outcome:
        try:
            await async_fault_point(do.STEP_POINTS[type(question)])
            outcome = await self._answer(question, hands)
        except NodeError as error:
            return Failed(question, error, self._moment())
        except Exception as error:
            log.exception("a step in the life of the core failed", step=type(question).__name__)
            return Failed(question, InternalError.of(error), self._moment())
        return outcome if outcome is not None else Done(question)

    async def _do(self, action: do.Action, hands: Hands) -> None:
        try:
            await async_fault_point(do.STEP_POINTS[type(action)])
            await self._carry_out(action, hands)
        except NodeError as error:
            log.warning("a step in the life of the core failed", step=type(action).__name__, error=error.text)
        except Exception:
            # Nobody waits for its outcome, and the actions after it must be done.
            log.exception("a step in the life of the core failed", step=type(action).__name__)

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.chance())

    # --- actions with an outcome ----------------------------------------------------------------------------------

    async def _answer(self, question: do.Question, hands: Hands) -> Outcome | None:
        match question:
            case do.StartCore():
                await self._start_core(question)
            case do.CompleteCore(spec):
                self.watch_core()
                await self._settle_inbounds()
                await self._routing.core_started(spec.base)
                await self._users.try_failed_again(spec.inbounds)
            case do.EndCore():
                await self._end_core()
            case do.ProbeCore():
                await self._probe()
            case do.ForgetState():
                await self._users.forget_all()
                self._routing.forget()
            case _:
                return await hands.carry_out(question)
        return None

    async def _start_core(self, action: do.StartCore) -> None:
        spec, (rendered, self._rendered) = action.spec, (self._rendered, None)
        await async_fault_point("core.start")

        async def make_config() -> str:
            if rendered is not None and action.rendered:
                return rendered
            return await self.render(spec)

        try:
            running = await self._core.start(self._routing.table.effective(spec.base), make_config)
            self._users.core_is_new()
        except Exception:
            # Whatever went wrong: the machine relies on there being no core now. Otherwise there could be two.
            await self._core.stop()
            raise
        await self._core.keep(lambda: encode(spec))
        run = self._life.now.core_run + 1
        log.info("core started", pid=running.pid, run=run, users=len(self._users.table))

    async def render(self, spec: RunSpec, clients: ClientJsonCache | None = None) -> str:
        """Make the config of a core for ``spec`` with all desired users, as JSON; ``clients`` are used up."""
        base = with_inbound_counters(self._routing.table.effective(spec.base), self._inbound_stats.counting)
        return await render_config(base, self._users.table, spec.inbounds, clients)

    async def render_ahead(self, spec: RunSpec, clients: ClientJsonCache | None) -> None:
        """Do the same for the core that is started next."""
        self._rendered = await self.render(spec, clients)

    async def _end_core(self) -> None:
        self._stop_watching()
        if self._core.running is not None and self._core.api is not None:
            await self._traffic.last_poll(self._core.api, self._core.run_id)
        await self._core.stop()
        self._users.core_is_gone()

    async def _probe(self) -> None:
        if self._core.api is None:
            raise CoreNotStartedError
        try:
            await self._core.api.stats.sys_stats(self._settings.core_call_timeout_seconds)
        except CoreApiError as error:
            log.warning("the core that lingered does not answer", error=str(error))
            raise CoreUnavailableError(str(error)) from None

    # --- actions without one ----------------------------------------------------------------------------------------

    async def _carry_out(self, action: do.Action, hands: Hands) -> None:
        match action:
            case do.Record(desired, core_run):
                self._journal.meta.update(
                    backend=desired.message if desired is not None else None,
                    active=int(desired is not None),
                    core_run=core_run,
                    restoring=None,
                    restore_errors=None,
                )
            case do.Commit():
                await self._commit()
            case do.Publish():
                await self._status.publish()
            case do.LearnVersion():
                await self._status.learn_version()
            case do.RetryLater(delay_seconds, reason):
                log.warning("bringing the core back", reason=reason, pause_seconds=round(delay_seconds, 2))
                self._set_timer(delay_seconds, RetryDue())
            case do.LingerFor(seconds):
                log.info("stop: the core lingers, for a start that comes soon", seconds=seconds)
                self._set_timer(seconds, LingerEnded())
            case do.CancelTimer():
                self._cancel_timer()
            case do.GiveUp(delay_seconds, reason, verdict, again):
                if not again:
                    log.error(
                        "the core is given up for a while; it is tried again after pauses that grow to 10 minutes",
                        reason=reason,
                        why=verdict,
                        pause_seconds=delay_seconds,
                    )
                self._set_timer(delay_seconds, RetryDue())
            case do.ReapCore():
                await self._core.stop()
                self._users.core_is_gone()
                # Only the node has these counters now, so they are stored.
                await self._traffic.store_now()
            case do.KillCore(silent_seconds):
                log.error(
                    "the core hangs, ending it", run=self._life.now.core_run, silent_seconds=round(silent_seconds, 1)
                )
                await self._core.kill()
            case do.WarmUp():
                self._core.warm_up()
            case do.DiscardRunner():
                await self._core.discard_runner()
            case _:
                await hands.carry_out(action)

    # --- what happens by itself -----------------------------------------------------------------------------------

    def watch_core(self) -> None:
        """Tell the machine when the core that runs now has ended."""
        self._stop_watching()
        running = self._core.running
        if running is not None:
            self._watcher = asyncio.create_task(self._watch(running, self._life.now.core_run))

    def _stop_watching(self) -> None:
        watcher, self._watcher = self._watcher, None
        _cancel(watcher)

    async def _watch(self, running: RunningCore, core_run: int) -> None:
        code = await running.wait()
        async with self._core_lock:
            if self._core.running is running:
                await self._by_itself(CoreDied(core_run, code, self._moment()))

    def _set_timer(self, seconds: float, request: Request) -> None:
        self._cancel_timer()
        self._timer = asyncio.create_task(self._later(seconds, request))

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        _cancel(timer)

    async def _later(self, seconds: float, request: Request) -> None:
        await self._clock.sleep(seconds)
        async with self._core_lock:
            await self._by_itself(request)

    async def _by_itself(self, request: Request) -> None:
        try:
            await self.request(request)
        except Exception:
            # Nobody waits for its answer; the next request recovers from it.
            log.exception("not done", request=type(request).__name__)


def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None and task is not asyncio.current_task():
        task.cancel()
