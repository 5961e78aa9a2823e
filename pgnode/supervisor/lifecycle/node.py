"""The node as a whole: what it takes over from before, what it stores and tells of itself, and what maintenance does with it.

One task changes things (:mod:`pgnode.supervisor.commands.dispatcher`); a core that died is brought back by another, and both
take turns by a lock. What is desired is changed in memory, applied to the core, then stored and answered in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pgnode import __version__
from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import BACKEND, STATE, NodeStatus
from pgnode.errors import (
    CoreNotStartedError,
    InternalError,
    NodeError,
    NotInitializedError,
    StartFailedError,
)
from pgnode.settings import Settings
from pgnode.store.changes import Journal
from pgnode.store.state import StoredState
from pgnode.supervisor.commands.dispatcher import INTERNAL_TEXT, Answers, CommandDispatcher, Step
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.host.heap import HeapTrimmer
from pgnode.supervisor.host.system_stats import backend_stats
from pgnode.supervisor.lifecycle.core_lifecycle import CoreLifecycle
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.start import Starts
from pgnode.supervisor.lifecycle.states import State, Trigger
from pgnode.supervisor.persistence.committer import StateCommitter
from pgnode.supervisor.routing.changes import Routing
from pgnode.supervisor.routing.queries import RoutingQueries
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.users.core_users import CoreUsers
from pgnode.supervisor.users.drift import waiting
from pgnode.supervisor.users.sync import LongChange, UserSync
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.document import BaseConfig

log = structlog.get_logger(__name__)


class Node:
    """Owns the desired state. Everything in it belongs to the supervisor's event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        core: CoreController,
        redis: Redis,
        journal: Journal,
        committer: StateCommitter,
        snapshots: SnapshotWriter,
        traffic: TrafficCollector,
    ) -> None:
        self._settings = settings
        self._core = core
        self._redis = redis
        self._committer = committer
        self._snapshots = snapshots
        self._traffic = traffic
        #: Held by whoever starts, stops or changes the core.
        self.turn = asyncio.Lock()
        self.users = UserSync(CoreUsers(core, settings.core_call_timeout_seconds), journal)
        self.routing = Routing(settings, core, journal, self.turn, lambda: self.require_running().base)
        self.life = CoreLifecycle(
            settings,
            core,
            users=self.users,
            routing=self.routing,
            traffic=traffic,
            journal=journal,
            turn=self.turn,
            settled=self._settled,
        )
        self._starts = Starts(settings, self.life, self.users, self.routing)
        self._memory = HeapTrimmer()
        #: Core run whose first figures were published.
        self._introduced_run = 0
        #: What workers were told last.
        self._told: NodeStatus | None = None
        #: The panel has not called for its keep_alive.
        self._panel_away = False
        committer.tell_with_changes(self._tell)

    def __repr__(self) -> str:
        return f"Node({self.state}, generation {self._committer.generation}, {self.users.table!r})"

    def serve(self, commands: CommandDispatcher) -> None:
        """Take over the commands that start, stop, and change users or routing."""
        commands.changes |= {Kind.START: self._start, Kind.STOP: self._stop, **self.routing.changes}
        commands.looks |= RoutingQueries(self._settings, self._core, lambda: self.require_running().base).handlers
        commands.looks[Kind.WAITING_USERS] = self._waiting_users
        commands.sync = self._sync
        commands.begin = self._begin

    # --- life ---------------------------------------------------------------------------------------------------

    async def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor left, and bring its core up (or take it over)."""
        self.life.core_run = stored.core_run
        self.users.restore(stored)
        self.routing.restore(stored)
        backend: RunSpec | None = None
        if stored.backend is not None and stored.active:
            try:
                backend = RunSpec.read(pb.Backend.FromString(stored.backend), self._settings)
            except NodeError as error:
                log.error("the stored config cannot be used, waiting for a start", error=error.text)
        async with self.turn:
            running = await self._core.adopt()
            if backend is None:
                if running is not None:
                    log.info("ending the core of an earlier run: nothing shall run", pid=running.pid)
                    await self.life.end_core()
                await self._publish_state()
                return
            self.life.go(Trigger.START_REQUESTED)
            self.life.backend = backend
            self.routing.table.keep_for(backend.base)
            await self._publish_state()
            try:
                if (
                    running is not None
                    and running.config_hash == backend.base.base_hash
                    and self._core.matches(running)
                ):
                    log.info("taking over the running core of an earlier run", pid=running.pid)
                    self.life.take_over(running, backend)
                    await self.users.reconcile_all(backend.inbounds)
                    await self.routing.settle(backend.base, sure=False)
                else:
                    if running is not None:
                        log.info(
                            "ending the core of an earlier run: it has another config, or is another core",
                            pid=running.pid,
                        )
                        await self.life.end_core()
                    await self.life.start_core(backend)
                self.life.go(Trigger.CORE_READY)
            except NodeError as error:
                # One that was taken over and is not as it should be makes room for a new one.
                await self.life.end_core()
                self.life.bring_back_later(None, error.text)
            await self._committer.commit()
            await self._publish_state()

    async def shut_down(self) -> None:
        """End the core with the node, after a last look at its counters; the state stays desired."""
        async with self.turn:
            await self.life.end_core()

    @property
    def state(self) -> State:
        return self.life.state

    def status(self) -> NodeStatus:
        return NodeStatus(
            state=self.state,
            core_ready=self.state is State.RUNNING and not self.life.api_error,
            core_version=self._core.known_version,
            node_version=__version__,
            core_api_error=self.life.api_error,
            core_run=self.life.core_run,
            keep_alive_seconds=self.keep_alive_seconds,
            degraded=self._panel_away,
            starts=dict(self._starts.ways),
        )

    @property
    def keep_alive_seconds(self) -> int:
        """How long the panel may be silent before that is noticed; 0 = for ever."""
        return self.life.backend.keep_alive_seconds if self.life.backend is not None else 0

    async def panel_is(self, away: bool) -> None:
        """The panel has not called for as long as it said it would, or it is back."""
        self._panel_away = away
        if away and self._settings.keep_alive_action == "stop":
            silent_about = self.life.backend
            async with self.turn:
                # A start while this waited was a call.
                if self.life.backend is silent_about:
                    log.warning("stopping: the panel is away, and KEEP_ALIVE_ACTION says so")
                    await self.life.stop()
                    await self._committer.commit()
        await self._publish_state()

    async def _settled(self) -> None:
        """Something happened in the background: store what changed, and tell."""
        await self._committer.commit()
        await self._publish_state()

    async def _publish_state(self) -> None:
        pipe = self._redis.pipeline(transaction=True)
        self._put_state(pipe)
        try:
            await pipe.execute()
        except BUS_ERRORS as error:
            log.warning("state not published", error=str(error))

    async def core_api_answered(self, error: str) -> None:
        """What the last look at the core's API said: "" when it answered."""
        if error != self.life.api_error:
            self.life.api_error = error
            if error:
                log.warning("the core's API does not answer", error=error)
            else:
                log.info("the core's API answers again")
            await self._publish_state()

    # --- what is told with every change ---------------------------------------------------------------------------

    def _put_state(self, pipe: Pipeline) -> None:
        self._told = self.status()
        self._snapshots.put(pipe, STATE, self._told.encode())

    def _tell(self, pipe: Pipeline) -> None:
        # A change of users alone is no news to workers, and would cost each of them a look.
        if self.status() != self._told:
            self._put_state(pipe)
        if self._core.running is not None and self._introduced_run != self.life.core_run:
            self._introduced_run = self.life.core_run
            # Nobody who was told that the core runs shall hear that nothing is known of it.
            self._snapshots.put(pipe, BACKEND, backend_stats(self._core.initial_stats).SerializeToString())

    def counted_tags(self) -> list[tuple[str, str]]:
        """(kind, tag) of every inbound and outbound of the running core, "" where one has none: it is not counted then."""
        backend = self.life.core_backend or self.life.backend
        if backend is None:
            return []
        document = backend.base.document
        return [
            (kind, str(part.get("tag") or ""))
            for kind, key in (("inbound", "inbounds"), ("outbound", "outbounds"))
            for part in document.get(key) or ()
        ]

    def require_running(self) -> RunSpec:
        """The config that runs. Raises the UnavailableError of the node's state where none does."""
        if self.life.backend is None or self.state in (State.IDLE, State.FAILED):  # also while a core lingers
            raise NotInitializedError
        if self.state is not State.RUNNING:
            raise CoreNotStartedError
        return self.life.backend

    async def _sync(self, commands: Sequence[Command]) -> Answers:
        try:
            backend = self.require_running()
        except NodeError as error:
            return [(command, Reply(error=error)) for command in commands]
        return await self.users.sync(commands, backend.inbounds)

    async def _waiting_users(self, _command: Command) -> bytes:
        return waiting(self.users.table).encode()

    def _begin(self, command: Command) -> Step:
        """A full set, or another change of many users: what does the next part of it."""
        long: LongChange | None = None

        async def step() -> Reply | None:
            nonlocal long
            try:
                inbounds = self.require_running().inbounds
                long = long or self.users.begin(command, inbounds)
                reply = await self.users.go_on(long, inbounds)
            except NodeError as error:
                reply = Reply(error=error)
            except Exception:
                log.exception("a change of users failed", command=repr(command))
                self.users.look_again()
                reply = Reply(error=InternalError(INTERNAL_TEXT))
            if reply is not None and long is not None:
                self.users.end(long)
                self._memory.soon()
            return reply

        return step

    # --- start and stop -----------------------------------------------------------------------------------------

    async def _start(self, command: Command) -> bytes:
        await self._starts.start(command, self._core.known_version)
        command.body = b""
        self._memory.soon()
        return self.base_info().SerializeToString()

    async def _stop(self, _command: Command) -> bytes:
        await self.life.stop()
        return b""

    # --- maintenance --------------------------------------------------------------------------------------------

    @property
    def running_base(self) -> BaseConfig | None:
        """The config that runs, or is being brought back, with the rules of now; None where nothing has to run."""
        if self.life.backend is None or self.state is State.FAILED:
            return None
        return self.routing.table.effective(self.life.backend.base)

    @property
    def core_base(self) -> BaseConfig | None:
        """The config of the core that is there, also of one that lingers; None where there is none."""
        return self.life.core_backend.base if self.life.core_backend is not None else None

    async def change_core(
        self, change: Callable[[], Awaitable[None]], undo: Callable[[], Awaitable[None]], what: str
    ) -> bool:
        """End the core, do ``change``, and start it again with all users; where it does not come up, ``undo`` and once more.

        With nothing to run, only ``change`` is done. Returns whether a core runs now. Raises StartFailedError, whose text
        ends with what runs now, and what ``change`` raises.
        """
        async with self.turn:
            backend = self.life.backend
            if self.state is State.LINGERING:
                # The next start shall not take this one over.
                await self.life.end_stopped_core()
            if backend is None or self.state is State.FAILED:
                await change()
                await self._learn_version()
                await self._publish_state()
                return False
            log.info("a new core", reason=what)
            self.life.go(Trigger.START_REQUESTED)
            await self._publish_state()
            self.life.policy.reset()
            await self.life.end_core()
            failed: NodeError | None = None
            try:
                await change()
                await self.life.start_core(backend)
            except NodeError as error:
                log.warning("the core did not come up, going back", reason=what, error=error.text)
                failed = error
                await undo()
                try:
                    await self.life.start_core(backend)
                except NodeError as second:
                    self.life.bring_back_later(None, second.text)
                    await self._committer.commit()
                    await self._publish_state()
                    raise StartFailedError(
                        f"{error.text}; the core of before did not come up either: {second.text}"
                    ) from None
            self.life.go(Trigger.CORE_READY)
            await self._learn_version()
            await self._committer.commit()
            await self._publish_state()
            if failed is not None:
                raise StartFailedError(f"{failed.text}; the core of before runs again")
            return True

    async def _learn_version(self) -> None:
        try:
            await self._core.version()
        except StartFailedError as error:
            log.warning("the core does not tell its version", error=error.text)

    async def reset(self) -> None:
        """End the core and forget config, users and routing; the traffic books stay."""
        async with self.turn:
            await self.life.stop_now()
            await self.users.forget_all()
            self.routing.table.forget()
            await self._committer.commit()
            await self._publish_state()

    def base_info(self) -> pb.BaseInfoResponse:
        running = self.state is State.RUNNING
        return pb.BaseInfoResponse(
            started=running,
            core_version=self._core.known_version,
            node_version=__version__,
            version=__version__,
            core_type="xray",
            running=running,
        )
