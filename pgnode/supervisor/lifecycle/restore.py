"""A new supervisor takes over what an earlier one left: what it stored, and the core that may still run."""

from __future__ import annotations

import asyncio

import structlog

from pgnode.errors import NodeError
from pgnode.settings import Settings
from pgnode.store.state import StoredState
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle.core_lifecycle import CoreLifecycle
from pgnode.supervisor.lifecycle.events import CoreFound, Found, Outcome, SupervisorStarted
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.routing.changes import RoutingChanges
from pgnode.supervisor.routing.core_routing import CoreRouting
from pgnode.supervisor.users.sync import UserSync
from pgnode.wire import service_pb2 as pb

log = structlog.get_logger(__name__)


class Restore:
    """Done once, before anything is changed (:class:`~pgnode.supervisor.lifecycle.core_lifecycle.Hands`).

    Args:
        settings: Paths.
        lifecycle: Asks the machine.
        core: The core's process.
        users: Take over what was stored of them.
        routing: Takes over what was stored of it.
        routing_changes: Take over which of them were done.
        core_lock: Held meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        lifecycle: CoreLifecycle,
        *,
        core: CoreController,
        users: UserSync,
        routing: CoreRouting,
        routing_changes: RoutingChanges,
        core_lock: asyncio.Lock,
    ) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._core = core
        self._users = users
        self._routing = routing
        self._routing_changes = routing_changes
        self._core_lock = core_lock

    def __repr__(self) -> str:
        return f"Restore({self._core!r})"

    async def restore(self, stored: StoredState) -> None:
        """Take over what was stored, and bring its core up, or take that over as well."""
        self._users.restore(stored)
        self._routing.restore(stored)
        self._routing_changes.restore(stored)
        desired = self._read(stored)
        if desired is not None:
            # Another version of the node may make another base config of the same start.
            self._routing.table.keep_for(desired.base)
        async with self._core_lock:
            await self._lifecycle.request(SupervisorStarted(desired, stored.core_run), self)

    def _read(self, stored: StoredState) -> RunSpec | None:
        if stored.backend is None or not stored.active:
            return None
        try:
            return RunSpec.read(pb.Backend.FromString(stored.backend), self._settings)
        except NodeError as error:
            log.error("the stored config cannot be used, waiting for a start", error=error.text)
            return None
        except Exception:
            # Whatever it is, it would be the same at every restart.
            log.exception("the stored config cannot be read, waiting for a start")
            return None

    async def carry_out(self, action: do.Action) -> Outcome | None:
        """Do one step of it."""
        match action:
            case do.FindCore():
                return CoreFound(action, await self._find(action.desired))
            case do.TakeOverCore(spec):
                self._lifecycle.watch_core()
                self._core.follow_logs(spec.base)
                await self._core.files.recall(spec.base)
                await self._users.reconcile_all(spec.inbounds)
                await self._routing.reconcile(spec.base, listing_is_enough=False)
        return None

    async def _find(self, desired: RunSpec | None) -> Found:
        running = await self._core.adopt()
        if running is None:
            return Found.NOTHING
        if desired is None:
            log.info("ending the core of an earlier run: nothing has to run", pid=running.pid)
        elif running.config_hash == desired.base.base_hash and self._core.matches(running):
            log.info("taking over the running core of an earlier run", pid=running.pid)
            return Found.MATCHING
        else:
            log.info("ending the core of an earlier run: it has another config, or is another core", pid=running.pid)
        return Found.OTHER
