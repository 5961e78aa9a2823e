"""The parts of the node, put together: constructors only, each part gets all it needs in its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.os_support.clock import Clock
from pgnode.store.changes import Journal
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle.core_exchange import CoreExchange
from pgnode.supervisor.lifecycle.core_lifecycle import CoreLifecycle
from pgnode.supervisor.lifecycle.drain import Drain, Surroundings
from pgnode.supervisor.lifecycle.hot_change import Prepare, prepare_hot_change
from pgnode.supervisor.lifecycle.interrupted_change import InterruptedChange
from pgnode.supervisor.lifecycle.node import Node
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.restore import ResolveUpdate, Restore
from pgnode.supervisor.lifecycle.start import Starts
from pgnode.supervisor.lifecycle.status import StatusBoard
from pgnode.supervisor.persistence.committer import StateCommitter
from pgnode.supervisor.routing.changes import RoutingChanges
from pgnode.supervisor.routing.core_routing import CoreRouting
from pgnode.supervisor.routing.queries import RoutingQueries
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.traffic.inbound_stats import InboundStats
from pgnode.supervisor.users.core_users import CoreUsers
from pgnode.supervisor.users.departures import Departures
from pgnode.supervisor.users.sync import UserSync
from pgnode.xray.config.document import BaseConfig

if TYPE_CHECKING:
    from pgnode.settings import Settings


def assemble_node(
    settings: Settings,
    *,
    core: CoreController,
    redis: Redis,
    journal: Journal,
    committer: StateCommitter,
    snapshots: SnapshotWriter,
    traffic: TrafficCollector,
    inbound_stats: InboundStats,
    departures: Departures | None = None,
    clock: Clock | None = None,
    prepare: Prepare = prepare_hot_change,
    taking_over: bool = False,
    resolve_update: ResolveUpdate | None = None,
    life: NodeLife | None = None,
) -> Node:
    """Put a node together.

    Args:
        settings: The node's settings.
        core: The core's process.
        redis: Takes snapshots.
        journal: Where changes of the desired state are noted.
        committer: Writes the journal to the store.
        snapshots: Writes snapshots.
        traffic: Reads the core's counters.
        inbound_stats: Decides whether the core counts inbounds.
        departures: Is told whose accounts went; None: nobody wants to know.
        clock: For pauses.
        prepare: Makes the plan of a hot change.
        taking_over: Whether workers go on by what the supervisor before said, until its core is taken over.
        resolve_update: Finishes a core update that was interrupted; None: there is none.
        life: What is known of the node's life; None: nothing is, until what was stored is restored.

    Returns:
        The node, with nothing started.
    """
    life = life if life is not None else NodeLife()
    core_lock = asyncio.Lock()

    def routed_base() -> BaseConfig:
        return life.require_routing().base

    def running_base() -> BaseConfig:
        return life.require_running().base

    departures = departures if departures is not None else Departures(journal)
    users = UserSync(
        CoreUsers(core, settings.core_call_timeout_seconds, departures.stranger), journal, departures=departures
    )
    routing = CoreRouting(settings, core, journal, core_lock, running_base)
    routing_changes = RoutingChanges(settings, core, routing, journal, routed_base)
    drain = Drain(
        settings,
        core,
        users,
        journal,
        core_lock=core_lock,
        surroundings=Surroundings(
            core_spec=lambda: life.now.core,
            commit=committer.commit,
            publish=lambda: status.publish(),  # noqa: PLW0108 - it is made below
            prepare=prepare,
            clock=clock if clock is not None else Clock(),
        ),
    )
    status = StatusBoard(
        life,
        core,
        redis,
        snapshots,
        draining=lambda: drain.reason,
        waiting=lambda: waiting(core, inbound_stats, life),
        taking_over=taking_over,
    )
    lifecycle = CoreLifecycle(
        settings,
        life,
        core=core,
        users=users,
        routing=routing,
        traffic=traffic,
        status=status,
        journal=journal,
        commit=committer.commit,
        core_lock=core_lock,
        settle_inbounds=drain.settle,
        inbound_stats=inbound_stats,
        clock=clock,
    )
    starts = Starts(
        settings,
        life,
        lifecycle,
        core=core,
        users=users,
        routing=routing,
        status=status,
        require_room=committer.require_room,
        drain=drain,
        prepare=prepare,
        clock=clock,
    )
    return Node(
        settings,
        life,
        lifecycle,
        starts=starts,
        exchange=CoreExchange(life, lifecycle, core_lock),
        restore=Restore(
            settings,
            lifecycle,
            core=core,
            users=users,
            routing=routing,
            routing_changes=routing_changes,
            traffic=traffic,
            journal=journal,
            commit=committer.commit,
            core_lock=core_lock,
            drain=drain,
            interrupted=InterruptedChange(settings, core, prepare),
            resolve_update=resolve_update if resolve_update is not None else _no_update,
            clock=clock,
        ),
        status=status,
        users=users,
        routing=routing,
        routing_changes=routing_changes,
        queries=RoutingQueries(settings, core, running_base, routed_base=routed_base),
        core_lock=core_lock,
        require_room=committer.require_room,
        drain=drain,
    )


def waiting(core: CoreController, inbound_stats: InboundStats, life: NodeLife) -> str:
    """Say what was asked for and waits for the next start of the core; "" for nothing."""
    spec = life.now.core
    return ", ".join(filter(None, (core.waiting_log, inbound_stats.waiting(spec.base if spec is not None else None))))


async def _no_update(_running: str) -> None:
    """Leave the core as it is: no update was interrupted."""
