"""Everything that a supervisor consists of, put together: the one place where parts learn of each other.

Constructors only: each part gets all it needs in its own, and nobody assigns to another one's fields. Where two parts need each
other, the first one gets a function that asks the second one later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from pgnode.bus.activity import read_activity
from pgnode.bus.commands import Kind
from pgnode.bus.connection import connect, ping_anew
from pgnode.bus.key_types import remove_other_types, types_of
from pgnode.bus.keys import Keys
from pgnode.bus.ownership import PrefixOwnership, this_node
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.server import CommandServer
from pgnode.bus.snapshot_writer import SnapshotMemory, SnapshotWriter
from pgnode.bus.snapshots import ALL
from pgnode.os_support.audit import AuditTrail
from pgnode.settings.handover import Handover
from pgnode.store.changes import Journal
from pgnode.store.writer import StoreWriter
from pgnode.supervisor import tasks
from pgnode.supervisor.bus_watch import BusWatch
from pgnode.supervisor.commands.change_times import ChangeTimes
from pgnode.supervisor.commands.dispatcher import CommandDispatcher, Handlers
from pgnode.supervisor.commands.together import Together
from pgnode.supervisor.control.answers import Answers, Known
from pgnode.supervisor.control.drain_orders import DrainOrders
from pgnode.supervisor.control.live import LiveAnswers
from pgnode.supervisor.control.live_report import alone_of
from pgnode.supervisor.control.operators import control_server
from pgnode.supervisor.control.progress import Progress
from pgnode.supervisor.control.session_orders import SessionOrders
from pgnode.supervisor.control.worker_orders import WorkerOrders
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.core.default_core import default_core
from pgnode.supervisor.core.log_pump import LogPump
from pgnode.supervisor.figures.http_server import FiguresServer
from pgnode.supervisor.figures.source import FigureSource, Sources
from pgnode.supervisor.figures.worker_reports import WorkerReports
from pgnode.supervisor.host.certificate import CertificateWatch
from pgnode.supervisor.host.cgroup import usable_processors
from pgnode.supervisor.host.logging import first_level
from pgnode.supervisor.host.node_log import NodeLog
from pgnode.supervisor.host.system_stats import SystemSampler
from pgnode.supervisor.introduction import Introduction
from pgnode.supervisor.lifecycle.assembly import assemble_node
from pgnode.supervisor.lifecycle.hang_watch import HangWatch
from pgnode.supervisor.lifecycle.node import Node
from pgnode.supervisor.lifecycle.panel_watch import watch_panel
from pgnode.supervisor.loops import CounterLoop, FiguresLoop, HealthLoop, SystemLoop
from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.supervisor.maintenance.core_update import CoreUpdate
from pgnode.supervisor.maintenance.downloads import Downloads
from pgnode.supervisor.maintenance.geofiles import GeoFiles
from pgnode.supervisor.maintenance.hard_reset import HardReset
from pgnode.supervisor.maintenance.interrupted_update import InterruptedUpdate
from pgnode.supervisor.maintenance.jobs import Job, Maintenance
from pgnode.supervisor.maintenance.new_core import NewCore
from pgnode.supervisor.maintenance.package_update import TryVersion
from pgnode.supervisor.maintenance.self_update import SelfUpdate
from pgnode.supervisor.persistence.committer import StateCommitter
from pgnode.supervisor.persistence.snapshot_publisher import SnapshotPublisher
from pgnode.supervisor.processes import gunicorn, unknown_children, valkey
from pgnode.supervisor.processes.api_processes import ApiProcesses
from pgnode.supervisor.processes.child import Child
from pgnode.supervisor.processes.grpc_workers import GrpcWorkers
from pgnode.supervisor.processes.inheritance import NOTHING, Inheritance
from pgnode.supervisor.processes.pid_registry import PidRegistry
from pgnode.supervisor.processes.ports import ListeningSockets
from pgnode.supervisor.processes.restart_in_place import VersionTrial
from pgnode.supervisor.processes.restarts import Restarter
from pgnode.supervisor.sessions.cutter import Cutter
from pgnode.supervisor.tasks import TaskRunner, TaskSpec, Work
from pgnode.supervisor.traffic.assembly import Traffic, assemble_traffic
from pgnode.supervisor.traffic.lately_online import LatelyOnline
from pgnode.supervisor.traffic.queries import TrafficQueries
from pgnode.supervisor.users.departures import Departures
from pgnode.xray.config.accounts import email_key

if TYPE_CHECKING:
    from pgnode.settings import Settings


@dataclass(frozen=True, slots=True)
class Bus:
    """What is said over Redis."""

    redis: Redis
    #: Carries answers.
    answers: PipelinedRedis
    #: Takes commands.
    server: CommandServer
    publisher: SnapshotPublisher
    ownership: PrefixOwnership


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes beside the core."""

    pids: PidRegistry
    restarter: Restarter
    #: None with an external Redis.
    valkey: Child | None
    api: ApiProcesses


@dataclass(frozen=True, slots=True)
class Components:
    """A supervisor's parts, as starting and ending need them."""

    settings: Settings
    #: How workers get them.
    handover: Handover
    bus: Bus
    store: StoreWriter
    committer: StateCommitter
    pump: LogPump
    core: CoreController
    cores: CoreStore
    node: Node
    traffic: Traffic
    maintenance: Maintenance
    processes: Processes
    figures_loop: FiguresLoop
    system_loop: SystemLoop
    certificate: CertificateWatch
    node_log: NodeLog
    #: How far the supervisor is between its start and its end.
    progress: Progress
    #: Keeps the tasks going.
    runner: TaskRunner
    #: What each task does.
    tasks: Mapping[TaskSpec, Work]
    #: What the supervisor before left.
    inheritance: Inheritance
    snapshots: SnapshotWriter
    #: Gathers what is to be told in numbers.
    source: FigureSource


def compose(
    settings: Settings,
    handover: Handover,
    core_oom_score_adj: int | None = None,
    inheritance: Inheritance = NOTHING,
    try_version: TryVersion | None = None,
) -> Components:
    """Put a supervisor together. Nothing is started, and no file is touched.

    Args:
        settings: The node's settings.
        handover: How workers get them.
        core_oom_score_adj: What the core gets as ``oom_score_adj``; None: what this process has.
        inheritance: What the supervisor before left, where this is a restart in place.
        try_version: Tries whether a version can start; None: as this process would be started now.

    Returns:
        Its parts.
    """
    keys, journal = Keys(settings.bus_prefix), Journal()
    level, audit = first_level(settings), AuditTrail(settings.audit_file)
    node_log = NodeLog(level, inheritance.log_lines, keep_lines=settings.log_buffer_size, audit=audit)
    snapshots = SnapshotWriter(keys, inheritance.revision, SnapshotMemory())
    redis = connect(settings.bus_url)
    ownership = PrefixOwnership(redis, keys, this_node(settings.state_dir))
    wire = PipelinedRedis(settings.bus_url)
    bus = Bus(
        redis=redis,
        answers=wire,
        server=CommandServer(settings.bus_url, keys, ownership.is_ours),
        publisher=SnapshotPublisher(
            redis, snapshots, ownership.is_ours, keep_types=partial(remove_other_types, wire, types_of(keys, ALL))
        ),
        ownership=ownership,
    )
    changes = ChangeTimes(bus.server.now_ms)
    store = StoreWriter(settings.store_path, sync_always=settings.store_sync == "always")
    committer = StateCommitter(
        journal,
        store,
        bus.server,
        redis,
        bus.answers,
        tell=lambda pipe: node.tell(pipe),  # noqa: PLW0108 - the node is made below
        answered=changes.answered,
    )
    pump = LogPump.of(
        settings,
        node_log.lines.ring,
        inheritance,
        lambda block: node_log.print_core(block, core.running.pid if core.running is not None else 0),
    )
    core = CoreController(settings, default_core(settings), pump, oom_score_adj=core_oom_score_adj)

    traffic = assemble_traffic(
        settings,
        core,
        journal,
        redis,
        keys,
        commit=committer.commit_traffic,
        tags=lambda: node.counted_tags(),  # noqa: PLW0108 - the node is made below
        wanted=lambda email: node.users.table.get(email_key(email)) is not None,
        lately=LatelyOnline(lambda: node.online_seconds, lambda email: node.tunnel_address(email)),  # noqa: PLW0108
    )
    cores = CoreStore(settings.state_dir, settings.xray_executable_path, settings.download_max_mib * 1024 * 1024)
    departures = Departures(journal, place=pump.place, now=time.time, wanted=settings.cut_sessions == "on")
    node = assemble_node(
        settings,
        core=core,
        redis=redis,
        journal=journal,
        committer=committer,
        snapshots=snapshots,
        traffic=traffic.collector,
        inbound_stats=traffic.inbounds,
        departures=departures,
        taking_over=inheritance is not NOTHING,
        resolve_update=InterruptedUpdate(core, cores, settings.assets_dir).resolve,
    )

    ring, moved = node_log.lines.ring, traffic.collector.due.set
    cutter = Cutter.of(settings, departures, core, ring, lambda: node.core_base, moved=moved)

    downloads = Downloads(settings)
    jobs: dict[Kind, Job] = {
        Kind.CORE_UPDATE: CoreUpdate(settings, node, core, cores, downloads).run,
        Kind.GEOFILES: GeoFiles(settings, node, core, downloads).run,
        Kind.HARD_RESET: HardReset(node).run,
        Kind.UPDATE: SelfUpdate(settings, try_version or VersionTrial(settings.state_dir, handover)).run,
        Kind.NEW_CORE: NewCore(node).run,
    }
    maintenance = Maintenance(settings.run_dir, bus.server, committer, jobs)

    figures_loop = FiguresLoop(traffic.collector, traffic.figures, bus.publisher, bus.server.now_ms)
    queries = TrafficQueries(
        traffic.payouts,
        traffic.inbounds,
        traffic.figures,
        require_running=node.require_running,
        read=lambda: traffic.collector.look(core.api, core.run_id),
        publish_age=figures_loop.publish_age,
        commit=committer.commit,
    )
    handlers = Handlers(
        changes=node.changes,
        queries={Kind.TAKE_STATS: queries.take, Kind.SETTLE: traffic.payouts.settle},
        inspections={
            **node.inspections,
            Kind.LOOK: queries.look,
            Kind.BRING: bus.publisher.bring,
            Kind.METRICS: lambda command: source.metrics(command),  # noqa: PLW0108 - it is made below
            Kind.READY: lambda command: source.ready(command),  # noqa: PLW0108
            Kind.WATCH_LOGS: pump.sender.watch_asked,
        },
        sync=node.sync,
        begin=node.begin,
        maintain=maintenance.take,
    )
    together, lock = Together(usable_processors()), node.core_lock
    commands = CommandDispatcher(bus.server, committer, lock, handlers, together=together, known=node.known)

    certificate = CertificateWatch(settings)
    pids = PidRegistry(settings.run_dir / "children.json")
    restarter = Restarter()
    sockets = ListeningSockets(settings, inheritance)
    rest = Child(gunicorn.spec(settings, handover, lambda: sockets.descriptors), pids, tell=node_log.child_says)
    grpc = GrpcWorkers(settings, handover, pids, restarter, inheritance=inheritance, tell=node_log.child_says)
    processes = Processes(
        pids=pids,
        restarter=restarter,
        valkey=Child(valkey.spec(settings), pids, tell=node_log.child_says) if settings.redis_url is None else None,
        api=ApiProcesses(sockets, rest, grpc, inheritance, serves_rest=bool(settings.gunicorn_ports)),
    )
    system_loop = SystemLoop(bus.publisher, SystemSampler())
    counter_loop = CounterLoop(
        core,
        node,
        traffic.collector,
        traffic.storing,
        traffic.retention,
        generation=lambda: committer.generation,
        interval_seconds=settings.stats_update_interval_seconds,
    )
    health_loop = HealthLoop(core, node, bus.publisher, deadline_seconds=settings.core_call_timeout_seconds)
    runner, progress = TaskRunner(), Progress()
    reports = WorkerReports.on_bus(
        redis,
        keys,
        lambda: {
            "supervisor": os.getpid(),
            "gunicorn": rest.pid,
            "valkey": embedded.pid if embedded is not None else None,
            "core": core.running.pid if core.running is not None else None,
        },
    )
    answers = Answers(
        Known(
            settings,
            node,
            core,
            committer,
            certificate,
            pump,
            node_log,
            progress,
            ping=redis.ping,
            pids=lambda: {**processes.api.pids, **({embedded.name: embedded.pid} if embedded is not None else {})},
            restarts=restarter.restarts,
            task_failures=runner.failures,
            last_command_at=lambda: commands.last_command_at,
            restarts_in_place=inheritance.restarts,
            added_workers=lambda: processes.api.added,
            alone=lambda: alone_of(reports.workers.alive),
        )
    )
    live = LiveAnswers(answers.status, traffic.collector, traffic.figures, reports.workers)
    source = FigureSource(
        Sources(
            settings=settings,
            keys=keys,
            redis=redis,
            server=bus.server,
            node=node,
            core=core,
            core_told=lambda: health_loop.latest,
            collector=traffic.collector,
            ledger=traffic.figures.ledger,
            payouts=traffic.payouts,
            changes=changes,
            sessions=cutter.counts,
            workers=reports,
            added_workers=lambda: processes.api.added,
            committer=committer,
            publisher=bus.publisher,
            pump=pump,
            certificate=certificate,
            maintenance=maintenance,
            restarter=restarter,
            task_failures=runner.failures,
            restarts_in_place=inheritance.restarts,
        )
    )
    orders = WorkerOrders(processes.api), DrainOrders(node, core), SessionOrders(cutter, node, core)
    work: dict[TaskSpec, Work] = {
        tasks.CONTROL: control_server(settings.run_dir, answers, live, orders).run,
        tasks.COMMANDS: commands.read,
        tasks.CHANGES: commands.write,
        tasks.QUERIES: commands.answer_queries,
        tasks.STATISTICS: counter_loop.run,
        tasks.FIGURES: figures_loop.run,
        tasks.SNAPSHOTS: bus.publisher.keep,
        tasks.LOANS: traffic.payouts.watch_loans,
        tasks.HEALTH: health_loop.run,
        tasks.DRAIN: node.drain.run,
        tasks.BUS: BusWatch(redis.ping, lambda: ping_anew(settings.bus_url), lambda: bus.server.looked_at).run,
        tasks.SYSTEM: system_loop.run,
        tasks.PANEL: lambda: watch_panel(
            lambda: node.keep_alive_seconds, lambda: read_activity(redis, keys), node.panel_noticed
        ),
        tasks.SESSIONS: cutter.run,
        tasks.LOGS: pump.sender.run,
        tasks.LOG_FILES: pump.writer.run,
        tasks.CERTIFICATE: certificate.run,
        tasks.REPORTS: source.run,
        tasks.INTRODUCTION: Introduction(settings, bus.publisher.publish).run,
    }
    if settings.gunicorn_ports:
        work[tasks.GUNICORN] = lambda: restarter.keep(rest)
    if settings.metrics_port is not None:
        work[tasks.METRICS] = FiguresServer(settings.metrics_host, settings.metrics_port, source.pages).run
    if settings.core_hang_seconds:
        work[tasks.HANGS] = HangWatch(
            core, node, limit_seconds=settings.core_hang_seconds, call_seconds=settings.core_call_timeout_seconds
        ).run
    if settings.grpc_worker_count:
        work[tasks.GRPC_WORKERS] = grpc.keep
    if os.getpid() == unknown_children.INIT:
        work[tasks.ORPHANS] = unknown_children.reap_orphans
    embedded = processes.valkey
    if embedded is not None:
        work[tasks.VALKEY] = lambda: restarter.keep(embedded)
    else:
        work[tasks.OWNERSHIP] = ownership.keep
    return Components(
        settings=settings,
        handover=handover,
        bus=bus,
        store=store,
        committer=committer,
        pump=pump,
        core=core,
        cores=cores,
        node=node,
        traffic=traffic,
        maintenance=maintenance,
        processes=processes,
        figures_loop=figures_loop,
        system_loop=system_loop,
        certificate=certificate,
        node_log=node_log,
        progress=progress,
        runner=runner,
        tasks=work,
        inheritance=inheritance,
        snapshots=snapshots,
        source=source,
    )
