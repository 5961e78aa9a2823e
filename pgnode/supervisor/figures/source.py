"""Gathers the node's figures: the one place that knows where each is, for metrics, health and the operator's commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pgnode.bus.commands import Command, Reply
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import Keys
from pgnode.bus.reports import Report
from pgnode.bus.server import CommandServer
from pgnode.metrics.series import Series
from pgnode.os_support.loop_lag import LoopLag
from pgnode.supervisor.commands.change_times import ChangeTimes
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.core.log_pump import LogPump
from pgnode.supervisor.figures.health import not_ready
from pgnode.supervisor.figures.http_server import JSON_TYPE, Answer, Page
from pgnode.supervisor.figures.node_figures import (
    BusFigures,
    CoreFigures,
    HostFigures,
    NodeFigures,
    SessionFigures,
    TrafficFigures,
    UserFigures,
    WorkersFigures,
)
from pgnode.supervisor.figures.series import series_of
from pgnode.supervisor.figures.worker_reports import WorkerReports
from pgnode.supervisor.host.certificate import CertificateWatch
from pgnode.supervisor.host.cgroup import read_limits
from pgnode.supervisor.lifecycle.node import Node
from pgnode.supervisor.maintenance.jobs import Maintenance
from pgnode.supervisor.persistence.committer import StateCommitter
from pgnode.supervisor.persistence.snapshot_publisher import SnapshotPublisher
from pgnode.supervisor.processes.restarts import Restarter
from pgnode.supervisor.sessions.connections import count_connections
from pgnode.supervisor.sessions.counts import SessionCounts
from pgnode.supervisor.tasks import TASKS
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.payouts import Payouts
from pgnode.wire import service_pb2 as pb

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: Seconds that the bus has to tell how it is.
BUS_SECONDS = 1.0

#: Between the content type of a text and the text, in the reply to a METRICS command.
TYPE_END = b"\n"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures are."""

    settings: Settings
    keys: Keys
    redis: Any
    server: CommandServer
    node: Node
    core: CoreController
    #: The core's own figures: the run that they are of, and what it told last.
    core_told: Callable[[], tuple[str, pb.BackendStatsResponse] | None]
    collector: TrafficCollector
    ledger: Ledger
    payouts: Payouts
    changes: ChangeTimes
    sessions: SessionCounts
    workers: WorkerReports
    #: How many more workers were asked for than the settings say, by kind.
    added_workers: Callable[[], Mapping[str, int]]
    committer: StateCommitter
    publisher: SnapshotPublisher
    pump: LogPump
    certificate: CertificateWatch
    maintenance: Maintenance
    restarter: Restarter
    task_failures: Mapping[str, int]
    restarts_in_place: int


def _render(series: Series, accept: str) -> tuple[str, bytes]:
    # A node that nobody scrapes needs none of it.
    from pgnode.metrics.exposition import render  # noqa: PLC0415

    return render(series, accept)


class FigureSource:
    """Belongs to the supervisor's loop.

    Args:
        sources: Where the figures are.
        now: Unix seconds.
        monotonic: Seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sources = sources
        self._now = now
        self._monotonic = monotonic
        self._started_at = now()
        self._lag = LoopLag()
        self._gc_run, self._gc_ns, self._gc_seconds = "", 0, 0.0

    def __repr__(self) -> str:
        return f"FigureSource(since {self._started_at:.0f})"

    async def run(self) -> None:
        """Take the workers' reports, and measure how long the event loop is silent; until cancelled."""
        self._lag.start()
        try:
            await self.sources.workers.run()
        finally:
            self._lag.stop()

    # --- what is answered -----------------------------------------------------------------------------------------

    async def metrics(self, command: Command) -> Reply:
        """Answer the command METRICS; its body is an Accept header."""
        content_type, text = await self.text(command.body.decode(errors="replace"))
        # A large answer in the stream of replies would stay there until many others have come.
        return Reply(lent=1, parts=(content_type.encode() + TYPE_END + text,))

    async def ready(self, _command: Command) -> bytes:
        """Answer the command READY: JSON, ``ready`` and ``because``."""
        return self.readiness()[1]

    async def text(self, accept: str) -> tuple[str, bytes]:
        """Write the metrics down.

        Args:
            accept: An Accept header.

        Returns:
            The content type, and the text.
        """
        # A scrape writes hundreds of lines, and the first one loads what writes them.
        return await asyncio.to_thread(_render, series_of(await self.gather()), accept)

    def readiness(self, *, bus_answers: bool = True) -> tuple[bool, bytes]:
        """Tell whether the node is ready.

        Args:
            bus_answers: Redis answers.

        Returns:
            Whether it is, and that as JSON, with the reasons where it is not.
        """
        source = self.sources
        because = not_ready(
            source.node.status(),
            wanted=source.node.life.wants_core,
            store_error=source.committer.error,
            bus_answers=bus_answers,
        )
        return not because, json.dumps({"ready": not because, "because": because}).encode()

    @property
    def pages(self) -> Mapping[str, Page]:
        """What is answered on METRICS_PORT."""

        async def metrics(accept: str) -> Answer:
            return Answer(200, *await self.text(accept))

        async def live(_accept: str) -> Answer:
            return Answer(200, JSON_TYPE, b'{"live": true}')

        async def ready(_accept: str) -> Answer:
            bus = await self._bus()
            is_ready, body = self.readiness(bus_answers=bus.round_trip_seconds is not None)
            return Answer(200 if is_ready else 503, JSON_TYPE, body)

        async def health(_accept: str) -> Answer:
            status = self.sources.node.status()
            body = {"core_up": status.core_ready, "state": str(status.state)}
            return Answer(200 if status.core_ready else 503, JSON_TYPE, json.dumps(body).encode())

        return {"/metrics": metrics, "/livez": live, "/readyz": ready, "/health": health}

    # --- what is gathered -----------------------------------------------------------------------------------------

    async def gather(self) -> NodeFigures:
        """Gather everything, within about a second."""
        source = self.sources
        with contextlib.suppress(*BUS_ERRORS, TimeoutError):
            async with asyncio.timeout(BUS_SECONDS):
                await source.workers.take()
        bus = await self._bus()
        processes = await source.workers.processes()
        memory_limit, store_bytes, geofiles = await asyncio.to_thread(self._read_files)
        table = source.node.users.table
        online, addresses = source.collector.online
        until = source.certificate.until
        return NodeFigures(
            status=source.node.status(),
            wanted=source.node.life.wants_core,
            core=self._core(await source.node.outbound_delays()),
            users=UserFigures(
                desired=len(table),
                waiting=len(table.differing_all()),
                failed=len(source.node.users.rejected),
                online=online,
                addresses=addresses,
                changes=source.changes.results,
                change_seconds=source.changes.seconds,
            ),
            sessions=SessionFigures(
                open=await count_connections(source.core.running, source.node.core_base),
                ended=source.sessions.cut,
                left=source.sessions.left,
                failures=source.sessions.failures,
            ),
            traffic=TrafficFigures(
                sums=source.ledger.sums,
                polled=source.collector.polled(),
                loans=source.payouts.ended,
                taken_at=source.payouts.delivered_at,
                reading_seconds=source.collector.reading_seconds,
                reading_errors=source.collector.reading_errors,
            ),
            workers=self._workers(),
            host=HostFigures(
                processes=processes,
                memory_limit_bytes=memory_limit,
                child_restarts=source.restarter.restarts,
                task_failures={spec.name: source.task_failures.get(spec.name, 0) for spec in TASKS},
                lag_seconds=self._lag.longest_seconds,
                restarts_in_place=source.restarts_in_place,
                started_at=self._started_at,
            ),
            bus=bus,
            store_error=source.committer.error,
            store_failures=source.committer.failures,
            store_bytes=store_bytes,
            log_lines_dropped=source.pump.sender.dropped,
            certificate_until=None if until is None else until.timestamp(),
            jobs=source.maintenance.ended,
            geofiles=geofiles,
        )

    def _core(self, outbound_delays: Mapping[str, float]) -> CoreFigures:
        source = self.sources
        kind = "embedded" if source.settings.xray_executable_path is None else "executable"
        figures = CoreFigures(
            kind=kind,
            deaths=source.node.life.deaths,
            given_up=source.node.life.given_up,
            start_seconds=source.node.start_seconds,
            calls=source.node.users.core_calls,
            gc_pause_seconds=self._gc_pause_seconds(),
            outbound_delays=outbound_delays,
        )
        latest = source.core_told()
        if source.core.running is None or latest is None or latest[0] != source.core.run_id:
            return figures
        stats = latest[1]
        return replace(
            figures,
            uptime_seconds=stats.uptime,
            goroutines=stats.num_goroutine,
            heap_bytes=stats.alloc,
            sys_bytes=stats.sys,
        )

    def _gc_pause_seconds(self) -> float:
        """Add up what one core after the other tells, from the first look on."""
        latest = self.sources.core_told()
        if latest is not None:
            run, pause_ns = latest[0], latest[1].pause_total_ns
            if self._gc_run:
                more = pause_ns - self._gc_ns if run == self._gc_run else pause_ns
                self._gc_seconds += max(0, more) / 1e9
            self._gc_run, self._gc_ns = run, pause_ns
        return self._gc_seconds

    def _workers(self) -> WorkersFigures:
        sums, settings = self.sources.workers.workers, self.sources.settings
        wanted = {"rest": settings.web_concurrency} if settings.gunicorn_ports else {}
        if settings.grpc_worker_count:
            wanted["grpc"] = settings.grpc_worker_count
        added = self.sources.added_workers()
        wanted = {kind: count + added.get(kind, 0) for kind, count in wanted.items()}
        called_at = None
        if sums.last_call_at is not None:
            called_at = self._now() - (self._monotonic() - sums.last_call_at)
        alive: list[Report] = sums.alive
        return WorkersFigures(sums.sums, alive, wanted, called_at)

    async def _bus(self) -> BusFigures:
        source = self.sources
        refills = source.publisher.refills
        begun = self._monotonic()
        try:
            async with asyncio.timeout(BUS_SECONDS):
                await source.redis.ping()
                round_trip_seconds = self._monotonic() - begun
                waiting = int(await source.redis.xlen(source.keys.commands))
                memory = await source.redis.info("memory")
        except (*BUS_ERRORS, TimeoutError):
            return BusFigures(refills)
        return BusFigures(refills, waiting, round_trip_seconds, memory.get("used_memory"))

    def _read_files(self) -> tuple[int | None, int | None, dict[str, float]]:
        """Read what files tell: the limit of memory, the size of the store, when geo files were written."""
        settings = self.sources.settings
        limit = read_limits().memory_bytes
        if limit is None:
            with contextlib.suppress(Exception):
                limit = psutil.virtual_memory().total
        wal = settings.store_path.with_name(settings.store_path.name + "-wal")
        sizes = [size for path in (settings.store_path, wal) if (size := _size(path)) is not None]
        geofiles = {
            name: written
            for name in ("geoip", "geosite")
            if (written := _written_at(settings.assets_dir / f"{name}.dat")) is not None
        }
        return limit, sum(sizes) if sizes else None, geofiles


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _written_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
