"""``/start``: reads what is asked for and carries out the machine's actions for it. Called with the core lock held.

Which strategy a start uses, and what follows from each step, is decided by :mod:`pgnode.supervisor.lifecycle.start_task`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from pgnode.bus.commands import Command
from pgnode.errors import InvalidRequestError, NodeError, StartFailedError, UnsupportedError
from pgnode.os_support.clock import Clock
from pgnode.os_support.held_sockets import HeldSockets
from pgnode.os_support.own_names import own_names
from pgnode.settings.checks import paths_in
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.core.log_files import LogFiles
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle.core_lifecycle import CoreLifecycle
from pgnode.supervisor.lifecycle.drain import Drain
from pgnode.supervisor.lifecycle.events import Outcome, StartRefused, StartRequested, UsersApplied
from pgnode.supervisor.lifecycle.hot_change import HotChange, HotChangePlan, Prepare, prepare_hot_change
from pgnode.supervisor.lifecycle.interrupted_change import note_change
from pgnode.supervisor.lifecycle.kept_spec import encode
from pgnode.supervisor.lifecycle.new_core_requests import NewCoreRequests
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.refusals import RefusalLog
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import State
from pgnode.supervisor.lifecycle.status import StatusBoard
from pgnode.supervisor.routing.core_routing import CoreRouting
from pgnode.supervisor.users.decoding import Refusal
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.sync import Remembered, UserSync
from pgnode.supervisor.users.verdicts import Check
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.diff import Capabilities, Decision, StartStrategy, decide, with_changed_files
from pgnode.xray.config.faults import config_fault
from pgnode.xray.config.ports import check_claims_in_thread, remove_stale_sockets
from pgnode.xray.config.wireguard import takes_peers

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)


#: Takes about how many bytes are to be stored; raises StoreUnavailableError where the store does not take them.
RequireRoom = Callable[[int], Awaitable[None]]

#: About what a user takes in the store.
USER_BYTES = 256


class Starts:
    """Does starts, one at a time. Belongs to the supervisor's loop.

    Args:
        settings: Paths and time limits.
        life: The state of the node.
        lifecycle: Asks the machine.
        core: The core's process.
        users: Desired users, and the users in the core.
        routing: Desired rules, and the rules in the core.
        status: Counts the strategies used.
        require_room: Makes sure that the store takes what a start changes.
        drain: Ends with a start, unless it is to go on.
        prepare: Makes the plan of a hot change.
        clock: Tells when a reason that comes again is said again.
    """

    def __init__(
        self,
        settings: Settings,
        life: NodeLife,
        lifecycle: CoreLifecycle,
        *,
        core: CoreController,
        users: UserSync,
        routing: CoreRouting,
        status: StatusBoard,
        require_room: RequireRoom,
        drain: Drain,
        prepare: Prepare = prepare_hot_change,
        clock: Clock | None = None,
    ) -> None:
        self.require_room = require_room
        self.settings = settings
        self.life = life
        self.lifecycle = lifecycle
        self.core = core
        self.users = users
        self.routing = routing
        self.status = status
        self.drain = drain
        self.prepare = prepare
        self._clock = clock if clock is not None else Clock()
        self._refusals = RefusalLog(self._clock)
        self._new_cores = NewCoreRequests()

    def __repr__(self) -> str:
        return f"Starts({self.status!r})"

    async def start(self, command: Command) -> None:
        """Do what a command asks for.

        Args:
            command: Its body is a ``Backend`` message.

        Raises:
            NodeError: That was not possible; then what ran before runs, if it could be brought back.
        """
        try:
            await self._start(pb.Backend.FromString(command.body))
        except NodeError as error:
            self._refusals.refused(error.text)
            raise
        self._refusals.succeeded()

    async def _start(self, request: pb.Backend) -> None:
        begun = self._clock.now()
        users = list(request.users)
        del request.users[:]
        try:
            new = self._read(request)
            if request.type == pb.WIREGUARD and not takes_peers(version := await self.core.version()):
                raise UnsupportedError(
                    f"the core {version} is too old for WireGuard users: 26.6.27 is needed, update the core"
                )
            fault = await asyncio.to_thread(LogFiles.of(self.settings).config_fault, new.base)
            if fault is not None:
                raise StartFailedError(fault)
        except NodeError as error:
            await self.lifecycle.request(StartRefused(error))
            raise
        for warning in new.base.warnings:
            log.warning("config", warning=warning)
        job = StartJob(self, users)
        there = self._there()
        if there is not None and there.known and there.asks_the_same(new):
            # Another version of the node may have made another config of it, which is no reason for another core.
            kept = new.as_runs(there)
            diff = await self._diff(kept)
            new = new if diff is None or diff.strategy is StartStrategy.NEW_CORE else kept
        else:
            diff = await self._diff(new)
        await self.lifecycle.request(StartRequested(new, diff), job)
        job.report()
        self.status.start_seconds.observe(self._clock.now() - begun, job.strategy.replace(" ", "_"))

    def _read(self, request: pb.Backend) -> RunSpec:
        if request.type not in (pb.XRAY, pb.WIREGUARD):
            raise UnsupportedError("this node runs the Xray core only; type must be XRAY or WIREGUARD")
        if not request.config:
            raise InvalidRequestError("config is empty: send the core's whole config as JSON")
        return RunSpec.read(request, self.settings)

    def _there(self) -> RunSpec | None:
        """Return what the core runs that is there; None where there is none."""
        return self.life.now.core if self.core.running is not None else None

    async def _diff(self, new: RunSpec) -> Decision | None:
        """Find out how the core that is there could be brought to ``new``; None where there is none."""
        there = self._there()
        if there is None:
            return None
        if not there.known:
            if there.base.base_hash == new.base.base_hash:
                return Decision(StartStrategy.SAME, "the base config is that of the core which was found")
            return Decision(StartStrategy.NEW_CORE, "the config of the core that was found is not known")
        running = self.routing.table.effective(there.base)
        able = Capabilities.of(self.core.known_version)
        decision = with_changed_files(
            decide(running, new.base, able), await self.core.files.changed(new.base), new.base, able
        )
        if self.settings.apply_log_level == "now" and (waits := self.core.log_waits(new.base)):
            return Decision(StartStrategy.NEW_CORE, f"log changed, and APPLY_LOG_LEVEL=now: {waits}")
        if decision.strategy is not StartStrategy.SAME or self.life.state is not State.LINGERING:
            self._new_cores.started_otherwise()
        elif self._new_cores.restarted(self._clock.now()):
            return Decision(StartStrategy.NEW_CORE, "asked for by a third stop and start within a minute")
        return decision


class StartJob:
    """Carries out one start (:class:`~pgnode.supervisor.lifecycle.core_lifecycle.Hands`).

    Args:
        starts: What all starts need.
        users: The users that the start brings.
    """

    def __init__(self, starts: Starts, users: Sequence[pb.User]) -> None:
        self._starts = starts
        self._users = users
        self._table = starts.users
        self._strategy = StartStrategy.SAME
        self._plan: HotChangePlan | None = None
        #: Users as they were before.
        self._previous: Remembered | None = None
        #: JSON of the users for a new core, made while they are taken in.
        self._clients: ClientJsonCache | None = None
        self._refusals: list[Refusal] = []
        there = starts.life.now.core
        #: The start that led to the core which is there.
        self._kept_message = there.message if there is not None and there.known else b""

    def __repr__(self) -> str:
        return f"StartJob({self._strategy}, {len(self._users)} users)"

    async def carry_out(self, action: do.Action) -> Outcome | None:
        """Do one step of the start."""
        match action:
            case do.CheckConfig(spec, by_core):
                await self._check(spec, by_core=by_core)
            case do.PrepareHotChange(spec, decision):
                self._plan = await self._starts.prepare(self._starts.settings, self._starts.core.core, spec, decision)
            case do.CountStart(decision):
                self._count(decision)
            case do.CountFailedChange(error):
                self._count_failed(error)
            case do.TakeInUsers(spec, everyone):
                await self._take_in(spec, everyone=everyone)
            case do.ReturnUsers() if self._previous is not None:
                self._table.return_to(self._previous)
            case do.ApplyUsers(spec):
                if self._table.core_unknown:
                    await self._starts.drain.look(spec.base)
                    await self._table.learn_core(spec.inbounds)
                    await self._starts.routing.reconcile(spec.base, listing_is_enough=False)
                applied = await self._table.apply(self._table.table.all_known(), spec.inbounds)
                self._refusals += applied.refused.values()
                return UsersApplied(action, applied.error)
            case do.ChangeCore(spec):
                await self._change(spec)
            case do.FollowConfig(spec, changed):
                await self._follow(spec, changed=changed)
            case do.RenderConfig(spec):
                clients, self._clients = self._clients, None
                await self._starts.lifecycle.render_ahead(spec, clients)
        return None

    @property
    def strategy(self) -> StartStrategy:
        """How the start is done."""
        return self._strategy

    def report(self) -> None:
        """Say in the log which users were rejected."""
        if self._refusals:
            log.warning("start: users left out", count=len(self._refusals), first=str(self._refusals[0]))

    # --- steps ----------------------------------------------------------------------------------------------------

    async def _check(self, new: RunSpec, *, by_core: bool) -> None:
        """Find out everything that can be known about a config before anything that runs is touched."""
        there, running = self._starts.life.now.core, self._starts.core.running
        held = {claim.listener for claim in there.base.claims} if there is not None and running is not None else set()
        own = HeldSockets(running.pid) if running is not None else None
        cert_dir = self._starts.core.core.cert_dir
        settings = self._starts.settings
        fault = await asyncio.to_thread(
            config_fault,
            new.base,
            settings.run_dir,
            cert_dir=cert_dir,
            own_port=settings.metrics_port,
            own_names=await asyncio.to_thread(own_names, settings.metrics_host),
            script_paths=paths_in(settings.script_paths),
        )
        if fault is not None:
            raise StartFailedError(fault)
        await self._starts.require_room(len(new.message) + USER_BYTES * len(self._users))
        claims = new.base.claims
        await check_claims_in_thread(claims, held, own)
        if by_core:
            await self._starts.core.check(self._starts.routing.table.effective(new.base))
        # A hot change does not start a core, which would remove them, too.
        await asyncio.to_thread(remove_stale_sockets, [claim for claim in claims if claim.listener not in held])

    def _count(self, decision: Decision) -> None:
        self._strategy = decision.strategy
        self._starts.drain.started()
        state = str(self._starts.life.state)
        log.info("start", strategy=str(decision.strategy), reason=decision.reason, users=len(self._users), state=state)
        self._starts.status.count_start(str(decision.strategy))

    def _count_failed(self, error: NodeError) -> None:
        log.warning("the core could not be changed, starting a new one", error=error.text)
        self._starts.status.count_start(f"{StartStrategy.HOT_CHANGE}, failed")

    async def _take_in(self, new: RunSpec, *, everyone: bool) -> None:
        self._previous = self._table.remember()
        self._clients = ClientJsonCache(new.inbounds) if self._strategy is StartStrategy.NEW_CORE else None
        self._refusals += await self._table.replace(
            self._users,
            new.inbounds,
            check=Check.ALL if everyone else Check.CHANGED,
            clients=self._clients,
        )

    async def _change(self, new: RunSpec) -> None:
        """Do the hot change, and apply users to all other inbounds."""
        plan, sync, table = self._plan, self._table, self._table.table
        assert plan is not None, "a hot change is prepared first"
        change = HotChange(self._starts.core, plan, new, self._starts.settings.core_call_timeout_seconds)
        if (old := self._starts.life.now.core) is not None:
            await asyncio.to_thread(note_change, self._starts.settings.run_dir, old, new)
        await change.carry_out(table)
        await self._starts.routing.reconcile(new.base, listing_is_enough=False)
        untouched = {tag: spec for tag, spec in new.inbounds.items() if tag not in plan.diff.add_inbounds}
        if sync.core_unknown:
            await sync.learn_core(untouched)
        before = {key: table.applied(key) for key in change.refused}
        applied = await sync.apply(table.all_known(), untouched)
        error, refusals = applied.error, list(applied.refused.values())
        if applied.refused:
            # In the untouched inbounds they are as before; added inbounds still have the refused ones.
            rejected = {key: sync.rejected.get(key) for key in applied.refused}
            table.core_uncertain(applied.refused)
            error = error or (await sync.apply(applied.refused, new.inbounds)).error
            for key, user in rejected.items():
                # They are as before, which is not what was asked for: they stay on the list.
                if user is not None:
                    sync.rejected.put(key, user.email, user.cause, user.user, by_core=user.by_core)
        if change.refused:
            refusals += (await sync.refuse(change.refused, before, new.inbounds)).values()
        self._refusals += refusals
        if error is not None:
            raise error
        await change.finished()

    async def _follow(self, new: RunSpec, *, changed: bool) -> None:
        if changed or new.message != self._kept_message:
            await self._starts.core.keep(lambda: encode(new))
        if changed:
            await self._starts.core.files.note(new.base)
            await self._starts.core.files.save()
            await self._starts.core.follow(new.base, lambda: self._starts.lifecycle.render(new))
        else:
            self._starts.core.follow_logs(new.base)
        await self._starts.drain.settle()
        if self._starts.core.waiting_log:
            self._starts.status.count_start(f"{self._strategy}, log waits")
        await self._table.try_failed_again(new.inbounds)
