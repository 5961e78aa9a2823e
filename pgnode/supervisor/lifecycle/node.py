"""The node as the rest of the supervisor sees it: its commands, its state, and what maintenance does with it.

Everything that decides about its life is in :mod:`pgnode.supervisor.lifecycle.machine`; here requests are only handed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from redis.asyncio.client import Pipeline

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.snapshots import NodeStatus
from pgnode.errors import NodeError
from pgnode.metrics.instruments import Histogram
from pgnode.os_support.heap import HeapTrimmer
from pgnode.os_support.threads import take_turns
from pgnode.store.state import StoredState
from pgnode.supervisor.commands.dispatcher import Answers, Handler, Step
from pgnode.supervisor.lifecycle.core_exchange import Change, CoreExchange
from pgnode.supervisor.lifecycle.core_lifecycle import CoreLifecycle
from pgnode.supervisor.lifecycle.drain import Drain
from pgnode.supervisor.lifecycle.events import (
    ApiProbed,
    CoreHung,
    KeepAliveExpired,
    PanelNoticed,
    ResetRequested,
    ShutdownRequested,
    StopRequested,
)
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.restore import Restore
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.start import RequireRoom, Starts
from pgnode.supervisor.lifecycle.states import State
from pgnode.supervisor.lifecycle.status import StatusBoard
from pgnode.supervisor.routing.changes import RoutingChanges
from pgnode.supervisor.routing.core_routing import CoreRouting
from pgnode.supervisor.routing.queries import RoutingQueries
from pgnode.supervisor.traffic.lately_online import WIREGUARD_SECONDS
from pgnode.supervisor.users.decoding import tunnel_address
from pgnode.supervisor.users.sync import UserSync
from pgnode.xray.config.accounts import email_key
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.protocols import WIREGUARD

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: About what a reset writes to the store.
RESET_BYTES = 64 * 1024


class Node:
    """Belongs to the supervisor's event loop.

    Args:
        settings: What a stop and a silent panel mean.
        life: The state of the node.
        lifecycle: Asks the machine.
        starts: Does starts.
        exchange: Exchanges the core.
        restore: Takes over what was stored.
        status: Tells the workers.
        users: Desired users, and the users in the core.
        routing: Desired rules, and the rules in the core.
        routing_changes: Changes of them.
        queries: Answers questions about the core's routing.
        core_lock: Held by whoever starts, stops or changes the core.
        require_room: Makes sure that the store takes what a reset changes.
        drain: Keeps new connections away.
    """

    def __init__(
        self,
        settings: Settings,
        life: NodeLife,
        lifecycle: CoreLifecycle,
        *,
        starts: Starts,
        exchange: CoreExchange,
        restore: Restore,
        status: StatusBoard,
        users: UserSync,
        routing: CoreRouting,
        routing_changes: RoutingChanges,
        queries: RoutingQueries,
        core_lock: asyncio.Lock,
        require_room: RequireRoom,
        drain: Drain,
    ) -> None:
        self.drain = drain
        self._require_room = require_room
        self._settings = settings
        self._life = life
        self._lifecycle = lifecycle
        self._starts = starts
        self._exchange = exchange
        self._restore = restore
        self._status = status
        self._users = users
        self._routing = routing
        self._routing_changes = routing_changes
        self._queries = queries
        self.core_lock = core_lock
        self._memory = HeapTrimmer()

    def __repr__(self) -> str:
        return f"Node({self.state}, {self._users.table!r})"

    @property
    def changes(self) -> Mapping[Kind, Handler]:
        """Handlers of the commands that start, stop, or change routing."""
        return {Kind.START: self._start, Kind.STOP: self._stop, **self._routing_changes.handlers}

    @property
    def inspections(self) -> Mapping[Kind, Handler]:
        """Handlers of inspections."""
        return self._queries.handlers

    async def outbound_delays(self) -> Mapping[str, float]:
        """Return what the core's observatory measured of outbounds: tag -> seconds; nothing where there is none."""
        return await self._queries.delays()

    # --- what is asked of it --------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the node is in its life."""
        return self._life.state

    @property
    def life(self) -> Life:
        """What is known of its life now; never changes."""
        return self._life.now

    def status(self) -> NodeStatus:
        """Return what workers are told of it."""
        return self._status.status()

    async def known(self) -> None:
        """Wait until it is known whether a core runs, up to a limit."""
        await self._life.known()

    @property
    def start_seconds(self) -> Histogram:
        """How long starts took that succeeded, by strategy."""
        return self._status.start_seconds

    @property
    def users(self) -> UserSync:
        """Desired users, and the users in the core."""
        return self._users

    def counted_tags(self) -> list[tuple[str, str]]:
        """Return (kind, tag) of every inbound and outbound of the core; one without a tag ("") is not counted."""
        return self._life.counted_tags()

    @property
    def online_seconds(self) -> float:
        """For how long after its last connection a user counts as online, in seconds."""
        return WIREGUARD_SECONDS if self._life.core_type == WIREGUARD else 0.0

    def tunnel_address(self, email: str) -> str:
        """Return an address that a user comes from inside its WireGuard tunnel; "" where none is known."""
        return tunnel_address(self._users.table.get(email_key(email)))

    @property
    def keep_alive_seconds(self) -> int:
        """How long the panel may be silent before that is noticed; 0 = for ever."""
        return self._life.keep_alive_seconds

    @property
    def running_base(self) -> BaseConfig | None:
        """The config that runs or is being brought back, with the current rules; None where nothing has to run."""
        now = self._life.now
        if now.desired is None or not now.needs_core:
            return None
        return self._routing.table.effective(now.desired.base)

    @property
    def core_base(self) -> BaseConfig | None:
        """The config of the core that is there, also of one that lingers; None where there is none."""
        core = self._life.now.core
        return core.base if core is not None else None

    def require_running(self) -> RunSpec:
        """Return what runs. Raises the UnavailableError of the node's state where nothing does."""
        return self._life.require_running()

    # --- from start to end ----------------------------------------------------------------------------------------

    async def introduce(self, *, bus_is_new: bool) -> None:
        """Tell workers of the state before any of them is started; ``bus_is_new``: nobody told them anything before."""
        await self._status.introduce(bus_is_new=bus_is_new)

    async def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor left, and bring its core up, or take that over as well."""
        await self._restore.restore(stored)

    async def shut_down(self) -> None:
        """End the core with the node, after a last poll of its counters; what has to run stays desired."""
        async with self.core_lock:
            await self._lifecycle.request(ShutdownRequested())

    # --- news -----------------------------------------------------------------------------------------------------

    async def panel_noticed(self, away: bool) -> None:
        """Note that the panel has not called for as long as it said it would, or that it calls again."""
        decisions = self._life.now.decisions
        await self._lifecycle.note(PanelNoticed(away))
        if away and self._settings.keep_alive_action == "stop":
            log.warning("the panel is away, and KEEP_ALIVE_ACTION makes that a stop", audit="node")
            async with self.core_lock:
                await self._lifecycle.request(KeepAliveExpired(decisions, self._settings.stop_linger_seconds))

    async def core_api_answered(self, error: str) -> None:
        """Note what the last call of the core's API said: "" when it answered."""
        now = self._life.now
        if error != now.api_error:
            if error:
                log.warning("the core's API does not answer", error=error)
            else:
                log.info("the core's API answers again")
        await self._lifecycle.note(ApiProbed(now.core_run, error))

    async def core_hangs(self, silent_seconds: float) -> None:
        """End the core, which gave no sign of life for so long; another one takes its place. The caller holds the core lock."""
        await self._lifecycle.request(CoreHung(self._life.now.core_run, silent_seconds))

    def tell(self, pipe: Pipeline) -> None:
        """Put into a transaction what is news to workers."""
        self._status.tell(pipe)

    # --- commands -------------------------------------------------------------------------------------------------

    async def _start(self, command: Command) -> bytes:
        await self._starts.start(command)
        command.body = b""
        self._memory.soon()
        return self._status.base_info().SerializeToString()

    async def _stop(self, _command: Command) -> bytes:
        await self._lifecycle.request(StopRequested(self._settings.stop_linger_seconds))
        return b""

    async def sync(self, commands: Sequence[Command], noted: Callable[[], None] = lambda: None) -> Answers:
        """Do a group of user changes; every caller gets its own answer. ``noted``: as :meth:`UserSync.sync` says."""
        try:
            spec = self.require_running()
        except NodeError as error:
            return [(command, Reply(error=error)) for command in commands]
        return await self._users.sync(commands, spec.inbounds, noted)

    def begin(self, command: Command) -> Step:
        """Return the function that does the next step of a full set, or of another bulk change."""
        change = self._users.bulk(command, lambda: self.require_running().inbounds, self._memory.soon)

        async def step() -> Reply | None:
            take_turns(often=True)
            try:
                return await change.step()
            finally:
                take_turns(often=False)

        return step

    # --- maintenance ----------------------------------------------------------------------------------------------

    async def exchange_core(self, change: Change, undo: Change, what: str) -> bool:
        """Do ``change`` while no core runs (:meth:`pgnode.supervisor.lifecycle.core_exchange.CoreExchange.exchange`)."""
        return await self._exchange.exchange(change, undo, what)

    async def reset(self) -> None:
        """End the core and forget config, users and routing; the traffic ledger stays.

        Raises:
            StoreUnavailableError: The store does not take that; what runs goes on.
        """
        async with self.core_lock:
            await self._require_room(RESET_BYTES)
            self.drain.end("the node was reset")
            await self._lifecycle.request(ResetRequested())
