"""The life of the node: starts and stops the core, keeps its config, and brings it back when it dies.

One task changes things (:mod:`pgnode.supervisor.commands`); a core that died is brought back by another, and both take turns by
a lock. What is desired is changed in memory, applied to the core, then stored and answered in one transaction.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import structlog
from redis.asyncio.client import Pipeline

from pgnode import __version__
from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.snapshots import BACKEND, STATE, NodeStatus, SnapshotWriter
from pgnode.errors import (
    CoreNotStartedError,
    CoreUnavailableError,
    InvalidRequestError,
    NodeError,
    NotInitializedError,
    StartFailedError,
    UnsupportedError,
)
from pgnode.settings import Settings
from pgnode.supervisor.backend import Backend
from pgnode.supervisor.commands import Answers, Commands
from pgnode.supervisor.core_control import CoreControl
from pgnode.supervisor.core_looks import CoreLooks
from pgnode.supervisor.keeper import Keeper, Undo
from pgnode.supervisor.restart import GiveUp, RestartPolicy
from pgnode.supervisor.routing import Routing
from pgnode.supervisor.sampling import backend_stats
from pgnode.supervisor.states import WITH_CORE, Event, State, next_state
from pgnode.supervisor.store import Store, StoredState
from pgnode.supervisor.traffic import Traffic
from pgnode.supervisor.user_sync import Check, UserSync
from pgnode.supervisor.users import Refusal
from pgnode.wire import service_pb2 as pb
from pgnode.xray.api import CoreApiError
from pgnode.xray.config import BaseConfig
from pgnode.xray.core import RunningCore
from pgnode.xray.ports import check_ports_in_thread, listeners

log = structlog.get_logger(__name__)


class Node:
    """Owns the desired state. Everything in it belongs to the supervisor's event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        core: CoreControl,
        store: Store,
        keeper: Keeper,
        snapshots: SnapshotWriter,
        traffic: Traffic,
    ) -> None:
        self._settings = settings
        self._core = core
        self._store = store
        self._keeper = keeper
        self._snapshots = snapshots
        self._traffic = traffic
        #: Held by whoever starts, stops or changes the core.
        self.turn = asyncio.Lock()
        self._policy = RestartPolicy()
        self._watcher: asyncio.Task[None] | None = None
        #: Ends a core that lingers.
        self._timer: asyncio.Task[None] | None = None
        #: What shall run; None when nothing shall.
        self._backend: Backend | None = None
        #: What the core runs, where there is one; goes on through a stop for as long as the core does.
        self._core_backend: Backend | None = None
        self._backend_unstored = False
        self.users = UserSync(core, store)
        self.routing = Routing(settings, core, store, self.turn, lambda: self.require_running().base)
        self.state = State.IDLE
        self.core_run = 0
        #: Core run whose first figures were published.
        self._introduced_run = 0
        #: What workers were told last.
        self._told: NodeStatus | None = None
        self.core_version = ""
        self.core_api_error = ""
        #: The panel has not called for its keep_alive.
        self._panel_away = False
        keeper.desired += [self.users, self.users.failures, self.routing, self]
        keeper.on_change = self._tell

    def __repr__(self) -> str:
        return f"Node({self.state}, generation {self._keeper.generation}, {self.users.table!r})"

    def serve(self, commands: Commands) -> None:
        """Take over the commands that start, stop, and change users or routing."""
        commands.changes |= {Kind.START: self._start, Kind.STOP: self._stop, **self.routing.changes}
        commands.looks |= CoreLooks(self._settings, self._core, lambda: self.require_running().base).handlers
        commands.sync = self._sync

    # --- life ---------------------------------------------------------------------------------------------------

    async def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor left, and bring its core up (or take it over)."""
        self._keeper.generation, self.core_run = stored.generation, stored.core_run
        self.users.table.restore(stored.users)
        self.users.failures.restore(stored.failed)
        self.routing.table.restore(stored.routing)
        self._traffic.restore(stored.ledger)
        backend: Backend | None = None
        if stored.backend is not None and stored.active:
            try:
                backend = Backend.read(pb.Backend.FromString(stored.backend), self._settings)
            except NodeError as error:
                log.error("the stored config cannot be used, waiting for a start", error=error.text)
        async with self.turn:
            running = await self._core.adopt()
            if backend is None:
                if running is not None:
                    log.info("ending the core of an earlier run: nothing shall run", pid=running.pid)
                    await self._end_core()
                await self._publish_state()
                return
            self._go(Event.START_REQUESTED)
            self._backend = backend
            self.routing.table.keep_for(backend.base)
            await self._publish_state()
            try:
                if running is not None and running.config_hash == backend.base.base_hash and self._core.is_its(running):
                    log.info("taking over the running core of an earlier run", pid=running.pid)
                    self._core_backend = backend
                    self._watch(running)
                    await self.users.reconcile_all(backend.inbounds)
                    await self.routing.settle(backend.base, sure=False)
                else:
                    if running is not None:
                        log.info(
                            "ending the core of an earlier run: it has another config, or is another core",
                            pid=running.pid,
                        )
                        await self._end_core()
                    await self._start_core(backend)
                self._go(Event.CORE_READY)
            except NodeError as error:
                # One that was taken over and is not as it should be makes room for a new one.
                await self._end_core()
                await self._bring_back_later(None, error.text, Event.CORE_DIED)
            await self._keeper.commit(())
            await self._publish_state()

    async def shut_down(self) -> None:
        """End the core with the node, after a last look at its counters; the state stays desired."""
        async with self.turn:
            await self._end_core()

    def _go(self, event: Event) -> State:
        before, self.state = self.state, next_state(self.state, event)
        if before is not self.state:
            log.info("node state", before=str(before), because=str(event), state=str(self.state))
        return self.state

    def status(self) -> NodeStatus:
        return NodeStatus(
            state=self.state,
            core_ready=self.state is State.RUNNING and not self.core_api_error,
            core_version=self.core_version,
            node_version=__version__,
            core_api_error=self.core_api_error,
            core_run=self.core_run,
            keep_alive_seconds=self.keep_alive_seconds,
            degraded=self._panel_away,
            users=len(self.users.table),
            users_applied=self.users.table.applied_count if self._core.running is not None else 0,
            users_failed=len(self.users.failures),
        )

    @property
    def keep_alive_seconds(self) -> int:
        """How long the panel may be silent before that is noticed; 0 = for ever."""
        return self._backend.keep_alive_seconds if self._backend is not None else 0

    async def panel_is(self, away: bool) -> None:
        """The panel has not called for as long as it said it would, or it is back."""
        self._panel_away = away
        if away and self._settings.keep_alive_action == "stop":
            log.warning("stopping: the panel is away, and KEEP_ALIVE_ACTION says so")
            async with self.turn:
                await self.stop()
                await self._keeper.commit(())
        await self._publish_state()

    async def _publish_state(self) -> None:
        pipe = self._store.pipeline()
        self._put_state(pipe)
        try:
            await pipe.execute()
        except BUS_ERRORS as error:
            log.warning("state not published", error=str(error))

    async def core_api_answered(self, error: str) -> None:
        """What the last look at the core's API said: "" when it answered."""
        if error != self.core_api_error:
            self.core_api_error = error
            if error:
                log.warning("the core's API does not answer", error=error)
            else:
                log.info("the core's API answers again")
            await self._publish_state()

    # --- the copy of the config in the store, and what is told with every change ---------------------------------

    def stage(self, pipe: Pipeline) -> Undo | None:
        return self.stage_all(pipe) if self._backend_unstored else None

    def stage_all(self, pipe: Pipeline) -> Undo | None:
        self._backend_unstored = False
        self._store.put_backend(
            pipe,
            backend=self._backend.message if self._backend is not None else None,
            active=self._backend is not None,
            core_run=self.core_run,
        )
        return self._backend_not_stored

    def _backend_not_stored(self) -> None:
        self._backend_unstored = True

    def _put_state(self, pipe: Pipeline) -> None:
        self._told = self.status()
        self._snapshots.put(pipe, STATE, self._told.encode())

    def _tell(self, pipe: Pipeline) -> None:
        # A change of users alone is no news to workers, and would cost each of them a look.
        if self.status() != self._told:
            self._put_state(pipe)
        if self._core.running is not None and self._introduced_run != self.core_run:
            self._introduced_run = self.core_run
            # Nobody who was told that the core runs shall hear that nothing is known of it.
            self._snapshots.put(pipe, BACKEND, backend_stats(self._core.first_stats).SerializeToString())

    def require_running(self) -> Backend:
        """The config that runs. Raises the UnavailableError of the node's state where none does."""
        if self._backend is None or self.state in (State.IDLE, State.FAILED):  # also while a core lingers
            raise NotInitializedError
        if self.state is not State.RUNNING:
            raise CoreNotStartedError
        return self._backend

    async def _sync(self, commands: Sequence[Command]) -> Answers:
        try:
            backend = self.require_running()
        except NodeError as error:
            return [(command, Reply(error=error)) for command in commands]
        return await self.users.sync(commands, backend.inbounds)

    # --- start and stop -----------------------------------------------------------------------------------------

    async def _start(self, command: Command) -> bytes:
        """``/start``: the same base config means that users are reconciled, another one means a new core."""
        request = pb.Backend.FromString(command.body)
        if request.type != pb.XRAY:
            raise UnsupportedError("this node runs the Xray core only; type must be XRAY")
        if not request.config:
            raise InvalidRequestError("config is empty: send a whole Xray config as JSON")
        users = list(request.users)
        del request.users[:]
        new = Backend.read(request, self._settings)
        for warning in new.base.warnings:
            log.warning("config", warning=warning)

        if self.state in WITH_CORE and self._core_backend is not None and self._core_backend.same_core(new):
            refusals = await self._keep_core(new, users)
        else:
            await self._check(new)
            # From here on something that runs is touched.
            previous = dict(self.users.table.items())
            # A config that did not stay up is nothing to come back to.
            fallback = self._backend if self.state is not State.FAILED else None
            self._go(Event.START_REQUESTED)
            refusals = await self.users.replace(users, new.inbounds, check=Check.ALL)
            self._policy.reset()
            await self._replace_core(fallback, new, previous)
        self._backend_unstored = True
        if refusals:
            log.warning("start: users left out", count=len(refusals), first=str(refusals[0]))
        return self.base_info().SerializeToString()

    async def _keep_core(self, new: Backend, users: Sequence[pb.User]) -> list[Refusal]:
        """A start with the base config of the core that runs, or lingers: only its users are changed."""
        log.info("start: the base config is the running one, the core stays", users=len(users), state=str(self.state))
        lingered = self.state is State.LINGERING
        previous = dict(self.users.table.items())
        if lingered:
            self._end_timer()
            self._go(Event.START_REQUESTED)
        self._backend = self._core_backend = new
        refusals = await self.users.replace(users, new.inbounds)
        applied = await self.users.apply(self.users.table.all_known(), new.inbounds)
        refusals += applied.refused.values()
        await self.users.try_failed_again(new.inbounds)
        error = applied.error
        if lingered:
            error = error or await self._core_silent()
            if error is not None:
                # It may have hung since the stop, and nobody has been told yet that it runs.
                log.warning("the core that lingered does not answer", error=error.text)
                await self._replace_core(None, new, previous)
            else:
                self._go(Event.CORE_READY)
        elif error is not None:
            raise error
        return refusals

    async def _core_silent(self) -> NodeError | None:
        """Why the core's API does not answer; None when it does."""
        try:
            if self._core.api is None:
                raise CoreNotStartedError
            await self._core.api.sys_stats(self._settings.core_call_timeout_seconds)
        except CoreApiError as error:
            return CoreUnavailableError(str(error))
        except NodeError as error:
            return error
        return None

    async def _check(self, new: Backend) -> None:
        """Everything that can be known about a config before anything that runs is touched."""
        runs = self._core_backend if self._core.running is not None else None
        held = runs.base.inbounds if runs is not None else ()
        await check_ports_in_thread(new.base.inbounds, {listener for spec in held for listener in listeners(spec)})
        await self._core.check(self.routing.table.effective(new.base))

    async def _replace_core(self, old: Backend | None, new: Backend, previous: dict[str, bytes]) -> None:
        """End the running core and start one with ``new``; bring ``old`` back when that one does not come up."""
        was_running = self._core.running is not None
        log.info("start: a new core", reason="the base config changed" if was_running else "no core runs")
        self._backend = new
        await self._end_core()
        try:
            await self._start_core(new)
        except NodeError as error:
            self.users.return_to(previous)
            self._backend = old
            if old is None:
                self._go(Event.START_FAILED)
                self._backend_unstored = True
                raise
            log.warning("start: the new core did not come up, bringing the old one back", error=error.text)
            try:
                await self._start_core(old)
            except NodeError as second:
                await self._bring_back_later(None, second.text, Event.CORE_DIED)
                raise StartFailedError(
                    f"{error.text}; and the previous config did not come up either: {second.text}"
                ) from None
            self._go(Event.CORE_READY)
            raise StartFailedError(f"{error.text}; the previous config runs again") from None
        self._go(Event.CORE_READY)

    async def _start_core(self, backend: Backend) -> None:
        effective = self.routing.table.effective(backend.base)
        running = await self._core.start(effective, self.users.table, backend.inbounds)
        self._core_backend = backend
        await self.routing.core_started(backend.base)
        self.core_run += 1
        self.core_api_error = ""
        self._backend_unstored = True
        log.info("core started", pid=running.pid, run=self.core_run, users=len(self.users.table))
        self._watch(running)
        await self.users.try_failed_again(backend.inbounds)

    async def _end_core(self) -> None:
        """End the core, if there is one, after a last look at its counters."""
        self._end_timer()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if self._core.running is not None:
            await self._traffic.poll(self._core.api, self._core.run_id)
        await self._core.stop()
        self._core_backend = None

    async def _stop(self, _command: Command) -> bytes:
        await self.stop()
        return b""

    async def stop(self) -> None:
        """Nothing shall run any more. A healthy core lingers: a start may take it over. Called with the turn held."""
        if self.state in (State.IDLE, State.LINGERING):
            return
        self._backend = None
        self._backend_unstored = True
        linger_seconds = self._settings.stop_linger_seconds
        if self._go(Event.STOP_REQUESTED) is State.LINGERING and linger_seconds and not self.core_api_error:
            log.info("stop: the core lives on, for a start that comes soon", seconds=linger_seconds)
            self._timer = asyncio.create_task(self._end_later(linger_seconds))
        else:
            await self._end_stopped_core()

    async def _end_stopped_core(self) -> None:
        if self.state is State.LINGERING:
            self._go(Event.LINGER_ENDED)
        await self._end_core()
        self._go(Event.CORE_STOPPED)

    async def _end_later(self, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        async with self.turn:
            if self.state is State.LINGERING:
                await self._end_stopped_core()
                await self._publish_state()

    def _end_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()

    # --- maintenance --------------------------------------------------------------------------------------------

    @property
    def running_base(self) -> BaseConfig | None:
        """The config that runs, or is being brought back, with the rules of now; None where nothing has to run."""
        if self._backend is None or self.state is State.FAILED:
            return None
        return self.routing.table.effective(self._backend.base)

    async def change_core(
        self, change: Callable[[], Awaitable[None]], undo: Callable[[], Awaitable[None]], what: str
    ) -> bool:
        """End the core, do ``change``, and start it again with all users; where it does not come up, ``undo`` and once more.

        With nothing to run, only ``change`` is done. Returns whether a core runs now. Raises StartFailedError, whose text
        ends with what runs now, and what ``change`` raises.
        """
        async with self.turn:
            backend = self._backend
            if self.state is State.LINGERING:
                # The next start shall not take this one over.
                await self._end_stopped_core()
            if backend is None or self.state is State.FAILED:
                await change()
                await self._learn_version()
                await self._publish_state()
                return False
            log.info("a new core", reason=what)
            self._go(Event.START_REQUESTED)
            await self._publish_state()
            self._policy.reset()
            await self._end_core()
            failed: NodeError | None = None
            try:
                await change()
                await self._start_core(backend)
            except NodeError as error:
                log.warning("the core did not come up, going back", reason=what, error=error.text)
                failed = error
                await undo()
                try:
                    await self._start_core(backend)
                except NodeError as second:
                    await self._bring_back_later(None, second.text, Event.CORE_DIED)
                    await self._keeper.commit(())
                    await self._publish_state()
                    raise StartFailedError(
                        f"{error.text}; the core of before did not come up either: {second.text}"
                    ) from None
            self._go(Event.CORE_READY)
            await self._learn_version()
            await self._keeper.commit(())
            await self._publish_state()
            if failed is not None:
                raise StartFailedError(f"{failed.text}; the core of before runs again")
            return True

    async def _learn_version(self) -> None:
        try:
            self.core_version = await self._core.version()
        except StartFailedError as error:
            log.warning("the core does not tell its version", error=error.text)

    async def reset(self) -> None:
        """End the core and forget config, users and routing; the traffic books stay."""
        async with self.turn:
            if self.state not in (State.IDLE, State.LINGERING):
                self._go(Event.STOP_REQUESTED)
            if self.state is not State.IDLE:
                await self._end_stopped_core()
            self._policy.reset()
            self._backend = None
            self._backend_unstored = True
            await self.users.forget_all()
            self.routing.table.forget()
            await self._keeper.commit(())
            await self._publish_state()

    def base_info(self) -> pb.BaseInfoResponse:
        running = self.state is State.RUNNING
        return pb.BaseInfoResponse(
            started=running,
            core_version=self.core_version,
            node_version=__version__,
            version=__version__,
            core_type="xray",
            running=running,
        )

    # --- a core that died ---------------------------------------------------------------------------------------

    def _watch(self, running: RunningCore) -> None:
        if self._watcher is not None and self._watcher is not asyncio.current_task():
            self._watcher.cancel()
        self._watcher = asyncio.create_task(self._bring_back_when_dead(running))

    async def _bring_back_when_dead(self, running: RunningCore) -> None:
        code = await running.wait()
        async with self.turn:
            if self._core.running is not running:
                return
            await self._core.stop()
            if self.state is State.LINGERING:
                log.info("the core ended while nothing was to run", exit_code=code)
                self._end_timer()
                self._go(Event.CORE_DIED)
                await self._publish_state()
                return
            await self._bring_back_later(code, f"the core ended with exit code {code}", Event.CORE_DIED)
            await self._publish_state()

    async def _bring_back_later(self, code: int | None, reason: str, event: Event) -> None:
        """Decide about a core that is not there but should be; called with the turn held."""
        self._go(event)
        decision = self._policy.died(asyncio.get_running_loop().time(), code, random.random())  # noqa: S311 - jitter
        if isinstance(decision, GiveUp):
            log.error("the core is given up; a new start is needed", reason=reason, why=decision.reason)
            self._go(Event.GAVE_UP)
            return
        log.warning("bringing the core back", reason=reason, pause_seconds=round(decision.delay_seconds, 2))
        self._watcher = asyncio.create_task(self._bring_back(decision.delay_seconds))

    async def _bring_back(self, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        async with self.turn:
            if self.state is not State.RECOVERING or self._backend is None:
                return
            try:
                await self._start_core(self._backend)
                self._go(Event.CORE_READY)
            except NodeError as error:
                await self._bring_back_later(None, error.text, Event.CORE_DIED)
            await self._keeper.commit(())
