"""The life of the core: started, watched, brought back when it dies, lingering after a stop, ended.

What shall run, and what does, is kept here with the node's state. Everything but :meth:`CoreLifecycle.go` is called with the turn
held; the tasks in the background (a core that died, a core that lingers) take it themselves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from pgnode.errors import CoreNotStartedError, CoreUnavailableError, NodeError
from pgnode.settings import Settings
from pgnode.store.changes import Journal
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import State, Trigger, next_state
from pgnode.supervisor.processes.restart_policy import GiveUp, RestartPolicy
from pgnode.supervisor.routing.changes import Routing
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.users.render import ClientJsonCache, render_config
from pgnode.supervisor.users.sync import UserSync
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.process.running import RunningCore

log = structlog.get_logger(__name__)


class CoreLifecycle:
    """At most one core, and the state of the node. Belongs to the supervisor's loop.

    ``settled`` is called after something happened in the background: what changed is to be stored and told.
    """

    def __init__(
        self,
        settings: Settings,
        core: CoreController,
        *,
        users: UserSync,
        routing: Routing,
        traffic: TrafficCollector,
        journal: Journal,
        turn: asyncio.Lock,
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self.core = core
        self._users = users
        self._routing = routing
        self._traffic = traffic
        self._journal = journal
        self._turn = turn
        self._settled = settled
        self.policy = RestartPolicy()
        self._watcher: asyncio.Task[None] | None = None
        #: Ends a core that lingers.
        self._timer: asyncio.Task[None] | None = None
        self.state = State.IDLE
        #: What shall run; None when nothing shall.
        self.backend: RunSpec | None = None
        #: What the core runs, where there is one; goes on through a stop for as long as the core does.
        self.core_backend: RunSpec | None = None
        self.core_run = 0
        #: Why the core's API did not answer at the last look.
        self.api_error = ""

    def __repr__(self) -> str:
        return f"CoreLifecycle({self.state}, core run {self.core_run})"

    def go(self, event: Trigger) -> State:
        """The state after ``event``. Raises TransitionError."""
        before, self.state = self.state, next_state(self.state, event)
        if before is not self.state:
            log.info("node state", before=str(before), because=str(event), state=str(self.state))
            if self.state is State.RUNNING:
                self._traffic.core_ready()
        return self.state

    def shall_run(self, backend: RunSpec | None) -> None:
        """What shall run from now on, to be stored."""
        self.backend = backend
        self.record()

    def record(self) -> None:
        """What shall run, and how many cores ran, for the store."""
        backend = self.backend
        self._journal.meta.update(
            backend=backend.message if backend is not None else None,
            active=int(backend is not None),
            core_run=self.core_run,
        )

    # --- start and end ------------------------------------------------------------------------------------------

    def take_over(self, running: RunningCore, backend: RunSpec) -> None:
        """A core that an earlier supervisor started runs ``backend``."""
        self.core_backend = backend
        self._watch(running)

    async def render(self, backend: RunSpec, clients: ClientJsonCache | None = None) -> str:
        """The config for :meth:`start_core` to start the next core with."""
        effective = self._routing.table.effective(backend.base)
        return await render_config(effective, self._users.table, backend.inbounds, clients)

    async def start_core(self, backend: RunSpec, rendered: str | None = None) -> None:
        """A new core with all desired users. Raises StartFailedError; then there is none."""

        async def make_config() -> str:
            return rendered if rendered is not None else await self.render(backend)

        running = await self.core.start(self._routing.table.effective(backend.base), make_config)
        self._users.table.core_has_all()
        self.core_backend = backend
        await self._routing.core_started(backend.base)
        self.core_run += 1
        self.api_error = ""
        self.record()
        log.info("core started", pid=running.pid, run=self.core_run, users=len(self._users.table))
        self._watch(running)
        await self._users.try_failed_again(backend.inbounds)

    async def end_core(self) -> None:
        """End the core, if there is one, after a last look at its counters."""
        self.end_timer()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if self.core.running is not None:
            await self._traffic.last_poll(self.core.api, self.core.run_id)
        await self.core.stop()
        self.core_backend = None

    async def silent(self) -> NodeError | None:
        """Why the core's API does not answer now; None when it does."""
        if self.core.api is None:
            return CoreNotStartedError()
        try:
            await self.core.api.stats.sys_stats(self._settings.core_call_timeout_seconds)
        except CoreApiError as error:
            return CoreUnavailableError(str(error))
        return None

    # --- stop ---------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Nothing shall run any more. A healthy core lingers: a start may take it over."""
        if self.state in (State.IDLE, State.LINGERING):
            return
        self.shall_run(None)
        linger_seconds = self._settings.stop_linger_seconds
        if self.go(Trigger.STOP_REQUESTED) is State.LINGERING and linger_seconds and not self.api_error:
            log.info("stop: the core lives on, for a start that comes soon", seconds=linger_seconds)
            self._timer = asyncio.create_task(self._end_later(linger_seconds))
        else:
            await self.end_stopped_core()

    async def stop_now(self) -> None:
        """Nothing shall run any more, and nothing does."""
        if self.state not in (State.IDLE, State.LINGERING):
            self.go(Trigger.STOP_REQUESTED)
        if self.state is not State.IDLE:
            await self.end_stopped_core()
        self.policy.reset()
        self.shall_run(None)

    async def end_stopped_core(self) -> None:
        """End a core that lingers, or was stopped."""
        if self.state is State.LINGERING:
            self.go(Trigger.LINGER_ENDED)
        await self.end_core()
        self.go(Trigger.CORE_STOPPED)

    async def _end_later(self, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        async with self._turn:
            if self.state is State.LINGERING:
                await self.end_stopped_core()
                await self._settled()

    def end_timer(self) -> None:
        """A core that lingers is no longer waiting for its end."""
        timer, self._timer = self._timer, None
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()

    # --- a core that died ---------------------------------------------------------------------------------------

    def _watch(self, running: RunningCore) -> None:
        if self._watcher is not None and self._watcher is not asyncio.current_task():
            self._watcher.cancel()
        self._watcher = asyncio.create_task(self._bring_back_when_dead(running))

    async def _bring_back_when_dead(self, running: RunningCore) -> None:
        code = await running.wait()
        async with self._turn:
            if self.core.running is not running:
                return
            await self.core.stop()
            # Nothing else has what it counted now.
            await self._traffic.store_now()
            if self.state is State.LINGERING:
                log.info("the core ended while nothing was to run", exit_code=code)
                self.end_timer()
                self.go(Trigger.CORE_DIED)
            else:
                self.bring_back_later(code, f"the core ended with exit code {code}")
            await self._settled()

    def bring_back_later(self, code: int | None, reason: str) -> None:
        """Decide about a core that is not there but should be."""
        self.go(Trigger.CORE_DIED)
        decision = self.policy.died(asyncio.get_running_loop().time(), code, random.random())  # noqa: S311 - jitter
        if isinstance(decision, GiveUp):
            log.error("the core is given up; a new start is needed", reason=reason, why=decision.reason)
            self.go(Trigger.GAVE_UP)
            return
        log.warning("bringing the core back", reason=reason, pause_seconds=round(decision.delay_seconds, 2))
        self._watcher = asyncio.create_task(self._bring_back(decision.delay_seconds))

    async def _bring_back(self, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        async with self._turn:
            if self.state is not State.RECOVERING or self.backend is None:
                return
            try:
                await self.start_core(self.backend)
                self.go(Trigger.CORE_READY)
            except NodeError as error:
                self.bring_back_later(None, error.text)
            await self._settled()
