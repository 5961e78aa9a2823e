"""The supervisor from start to end: :func:`run` prepares, starts what the node consists of, and watches it until told to end.

The main loop is :meth:`Supervisor._main_loop`: every task of the node runs beside it, and it waits for the first thing that
ends the node, which is a signal or a task that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import uvloop

from pgnode import dependencies
from pgnode.bus.activity import read_activity
from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.presence import workers_alive
from pgnode.bus.server import CommandServer
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import BACKEND, POLLED, SYSTEM
from pgnode.errors import ChildFailedError, OperatorError, StartFailedError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.malloc import keep_large_blocks_apart
from pgnode.settings import Settings, shorten
from pgnode.store.changes import Journal
from pgnode.store.writer import StoreWriter
from pgnode.supervisor.commands.dispatcher import CommandDispatcher
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.core.log_pump import LogPump
from pgnode.supervisor.host import identity
from pgnode.supervisor.host.banner import banner
from pgnode.supervisor.host.logging import set_up_logging
from pgnode.supervisor.host.system_stats import SystemSampler, every, read_backend
from pgnode.supervisor.lifecycle.assembly import assemble_node
from pgnode.supervisor.lifecycle.panel_watch import watch_panel
from pgnode.supervisor.lifecycle.states import WITH_CORE, State
from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.supervisor.maintenance.core_update import CoreUpdate
from pgnode.supervisor.maintenance.downloads import Downloads
from pgnode.supervisor.maintenance.geofiles import GeoFiles
from pgnode.supervisor.maintenance.hard_reset import HardReset
from pgnode.supervisor.maintenance.jobs import Job, Maintenance
from pgnode.supervisor.maintenance.self_update import SelfUpdate
from pgnode.supervisor.persistence.committer import StateCommitter
from pgnode.supervisor.persistence.snapshot_publisher import SnapshotPublisher
from pgnode.supervisor.processes import gunicorn, valkey
from pgnode.supervisor.processes.child import Child
from pgnode.supervisor.processes.grpc_workers import GrpcWorkers
from pgnode.supervisor.processes.pid_registry import PidRegistry
from pgnode.supervisor.processes.ports import check_gunicorn_ports
from pgnode.supervisor.processes.restarts import Restarter
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.config.accounts import email_key
from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.multiprocess_compat import stop_resource_tracker

log = structlog.get_logger(__name__)

#: Seconds between two looks at the core's own figures, which are also how the node learns that its API hangs.
HEALTH_SECONDS = 2.0

#: Seconds between two samples of the machine's load.
SYSTEM_SECONDS = 2.0

#: Pause between two publications of statistics: at least so many seconds, and so many times what the last one took.
FIGURES_PAUSE_SECONDS = 0.05
FIGURES_PAUSE_RATIO = 5

#: Workers start without the first figures when the store did not take them for so long.
FIRST_FIGURES_SECONDS = 5.0

#: Seconds between two looks for users who were removed and are owed nothing.
FORGET_SECONDS = 30.0

#: Seconds within which an external Redis must answer at the start.
REDIS_START_SECONDS = 10.0

#: Seconds that ending everything may take; what is left then is killed.
SHUTDOWN_SECONDS = 9.0


class Supervisor:
    """Everything the node consists of, wired together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        keys = self._keys = Keys(settings.redis_prefix)
        self._redis = connect(settings.bus_url)
        journal = Journal()
        self._store = StoreWriter(settings.store_path, sync_always=settings.store_sync == "always")
        self._server = CommandServer(settings.bus_url, keys)
        snapshots = SnapshotWriter(keys)
        self._pump = LogPump(
            self._redis, keys, keep_lines=settings.log_buffer_size, tail_lines=settings.startup_log_tail_size
        )
        self._pids = PidRegistry(settings.run_dir / "children.json")
        self._traffic = TrafficCollector(
            journal,
            lambda workers: workers_alive(self._redis, keys, workers),
            interval_seconds=settings.stats_update_interval_seconds,
        )
        self._cores = CoreStore(
            settings.state_dir, settings.xray_executable_path, settings.download_max_mib * 1024 * 1024
        )
        self._core = CoreController(settings, _usual_core(settings), self._pump)
        self._publisher = SnapshotPublisher(self._redis, snapshots)
        self._link = PipelinedRedis(settings.bus_url)
        self._committer = StateCommitter(journal, self._store, self._server, self._redis, self._link)
        self.node = assemble_node(
            settings,
            core=self._core,
            redis=self._redis,
            journal=journal,
            committer=self._committer,
            snapshots=snapshots,
            traffic=self._traffic,
        )
        self._commands = CommandDispatcher(self._server, self._committer, self.node.core_lock)
        self.node.serve(self._commands)
        self._commands.queries |= {
            Kind.TAKE_STATS: self._take_stats,
            Kind.SETTLE: self._traffic.settle,
            Kind.STORE_TRAFFIC: self._store_traffic,
        }
        self._traffic.commit = self._committer.commit_traffic
        self._traffic.tags = self.node.counted_tags
        self._traffic.wanted = lambda email: self.node.users.table.get(email_key(email)) is not None
        downloads = Downloads(settings)
        jobs: dict[Kind, Job] = {
            Kind.CORE_UPDATE: CoreUpdate(settings, self.node, self._core, self._cores, downloads).run,
            Kind.GEOFILES: GeoFiles(settings, self.node, self._core, downloads).run,
            Kind.HARD_RESET: HardReset(self.node).run,
            Kind.UPDATE: SelfUpdate(settings).run,
        }
        self._maintenance = Maintenance(settings.run_dir, self._server, self._committer, jobs)
        self._commands.maintain = self._maintenance.take
        self._restarter = Restarter()
        self._valkey = Child(valkey.spec(settings), self._pids) if settings.redis_url is None else None
        self._gunicorn = Child(gunicorn.spec(settings), self._pids)
        self._grpc = GrpcWorkers(settings, self._pids, self._restarter)
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()

    async def run(self, who: identity.Identity) -> int:
        """Start, watch, end. Returns the exit code; raises OperatorError when the node cannot run."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        set_up_logging(self._settings.debug, self._pump.node_line)
        signalled = asyncio.create_task(self._signals.get())
        started = asyncio.create_task(self._start(who))
        try:
            await asyncio.wait({signalled, started}, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                tasks = started.result()
                await self._main_loop(signalled, tasks)
        finally:
            started.cancel()
            signalled.cancel()
            code = await self._end()
        return code

    async def _start(self, who: identity.Identity) -> list[asyncio.Task[None]]:
        settings = self._settings
        stored = await self._store.open()
        await self._pids.end_orphans()
        await asyncio.to_thread(check_gunicorn_ports, settings)
        self._grpc.reserve_port()
        if self._valkey is not None:
            await self._valkey.start()
        else:
            await self._wait_for_redis()
        self._maintenance.restore()
        await self._select_core()
        log.info("state loaded", users=len(stored.users), active=stored.active)
        await self._traffic.restore(stored)
        restored = asyncio.create_task(self.node.restore(stored))
        await self._publish_system(SystemSampler())
        await self._publish_first_statistics()
        await asyncio.gather(self._gunicorn.start(), self._grpc.start())
        tasks = [
            self._task("commands", self._commands.read),
            self._task("queries", self._commands.answer_queries),
            self._task("logs", self._pump.run),
            self._task("health", self._health_loop),
            self._task("snapshots", self._publisher.keep),
            self._task("statistics", self._stats_loop),
            self._task("figures", self._figures_loop),
            self._task("loans", self._traffic.watch_loans),
            self._task("system", self._system_loop),
            self._task("panel", self._watch_panel),
            self._task("gunicorn", lambda: self._restarter.keep(self._gunicorn)),
        ]
        if self._settings.grpc_worker_count:
            tasks.append(self._task("gRPC workers", self._grpc.keep))
        if (store := self._valkey) is not None:
            tasks.append(self._task("valkey", lambda: self._restarter.keep(store)))
        # Changes wait until the state of before is back.
        await restored
        tasks.append(self._task("changes", self._commands.write))
        sys.stderr.flush()
        banner(settings, who, core=str(self._core.core), version=self._core.known_version, users=len(stored.users))
        return tasks

    async def _select_core(self) -> None:
        """Take the core that was selected over the API, if there is one that can be run."""
        default = self._core.core
        path = await asyncio.to_thread(self._cores.selected)
        if path is not None:
            self._core.select(ExecutableCore(path, self._settings.assets_dir))
            try:
                await self._core.version()
                return
            except StartFailedError as error:
                log.error("selected core cannot be run, using the default", core=str(path), error=error.text)
                self._core.select(default)
        try:
            await self._core.version()
        except StartFailedError as error:
            raise ChildFailedError(f"the core cannot be run: {error}") from None

    @staticmethod
    def _task(name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def named() -> None:
            await work()

        return asyncio.create_task(named(), name=name)

    async def _main_loop(self, signalled: asyncio.Task[signal.Signals], tasks: list[asyncio.Task[None]]) -> None:
        """Wait for the first thing that ends the node: a signal, or a task that failed."""
        done, _ = await asyncio.wait({signalled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if signalled in done:
            log.info("ending", signal=signalled.result().name)
        await end_tasks(tasks)
        for task in done & set(tasks):
            error = task.exception()
            if isinstance(error, OperatorError):
                raise error
            log.error("a part of the node ended", part=task.get_name(), exc_info=error)
            raise ChildFailedError(f"the node's part '{task.get_name()}' ended: {error!r}")

    async def _end(self) -> int:
        """End everything in order; a second signal ends it at once."""
        again = asyncio.create_task(self._signals.get())
        ending = asyncio.create_task(self._end_in_order())
        try:
            done, _ = await asyncio.wait({again, ending}, timeout=SHUTDOWN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ending in done:
                ending.result()
                return 0
            log.warning("ending at once" if again in done else "ending takes too long, killing what is left")
            return 130
        finally:
            await end_tasks([again, ending])
            self._kill_all()
            stop_resource_tracker()

    async def _end_in_order(self) -> None:
        await asyncio.gather(self._gunicorn.stop(), self._grpc.stop())
        await self._maintenance.close()
        await self.node.shut_down()
        await self._traffic.store_now()
        await self._committer.close()
        await self._store.close()
        await self._server.close()
        self._link.drop()
        await self._redis.aclose()
        if self._valkey is not None:
            await self._valkey.stop()

    def _kill_all(self) -> None:
        for child in (self._gunicorn, self._valkey):
            if child is not None:
                child.kill_group()
        self._grpc.kill_all()
        if self._core.running is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._core.running.pid, signal.SIGKILL)

    async def _wait_for_redis(self) -> None:
        url = self._settings.redis_url or ""
        try:
            async with asyncio.timeout(REDIS_START_SECONDS):
                while True:
                    try:
                        await self._redis.ping()
                        return
                    except BUS_ERRORS as error:
                        reason = str(error)
                        await asyncio.sleep(0.2)
        except TimeoutError:
            raise ChildFailedError(
                f"Redis at REDIS_URL={shorten(url)} does not answer ({reason}): start it, correct REDIS_URL, "
                "or unset it for a Valkey of the node's own"
            ) from None

    async def _take_stats(self, command: Command) -> Reply:
        self.node.require_running()
        return await self._traffic.take(command, self._core.api, self._core.run_id)

    async def _store_traffic(self, _command: Command) -> bytes:
        await self._traffic.store_now()
        return b""

    # --- loops over figures -------------------------------------------------------------------------------------

    async def _health_loop(self) -> None:
        never = asyncio.Event()
        while True:
            api = self._core.api
            if self.node.state is State.RUNNING and api is not None:
                try:
                    stats = await read_backend(api, self._settings.core_call_timeout_seconds)
                except CoreApiError as error:
                    if api is self._core.api and self.node.state is State.RUNNING:
                        await self.node.core_api_answered(str(error))
                else:
                    await self._publisher.publish({BACKEND: stats.SerializeToString()})
                    await self.node.core_api_answered("")
            await every(HEALTH_SECONDS, never)

    async def _stats_loop(self) -> None:
        loop = asyncio.get_running_loop()
        forgotten_at = loop.time()
        while True:
            api = self._core.api
            if self.node.state in WITH_CORE and api is not None:
                error = await self._traffic.poll(api, self._core.run_id, scheduled=True)
                if error:
                    log.debug("counters not read", error=error)
                elif loop.time() - forgotten_at >= FORGET_SECONDS:
                    forgotten_at = loop.time()
                    await self._traffic.forget_removed(self._committer.generation)
            await self._traffic.store_if_due()
            await every(self._settings.stats_update_interval_seconds, self._traffic.due)

    async def _figures_loop(self) -> None:
        """Publish statistics when they are news; a large set takes its time, so the pauses grow with it."""
        loop = asyncio.get_running_loop()
        while True:
            await self._traffic.news.wait()
            self._traffic.news.clear()
            begun = loop.time()
            await self._publish_statistics()
            await asyncio.sleep(max(FIGURES_PAUSE_SECONDS, FIGURES_PAUSE_RATIO * (loop.time() - begun)))

    async def _publish_statistics(self) -> bool:
        bodies = await self._traffic.blocks()
        return await self._publisher.publish({**bodies, POLLED: self._traffic.polled(self._server.now_ms()).encode()})

    async def _publish_first_statistics(self) -> None:
        """Before there are workers, who would serve what an earlier supervisor wrote."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_FIGURES_SECONDS):
                while not await self._publish_statistics():  # noqa: ASYNC110 - the store tells nobody that it is back
                    await asyncio.sleep(FIGURES_PAUSE_SECONDS)

    async def _system_loop(self) -> None:
        sampler = SystemSampler()
        never = asyncio.Event()
        while True:
            await every(SYSTEM_SECONDS, never)
            await self._publish_system(sampler)

    async def _watch_panel(self) -> None:
        await watch_panel(
            lambda: self.node.keep_alive_seconds,
            lambda: read_activity(self._redis, self._keys),
            self.node.panel_noticed,
        )

    async def _publish_system(self, sampler: SystemSampler) -> None:
        stats = await asyncio.to_thread(sampler.sample)
        await self._publisher.publish({SYSTEM: stats.SerializeToString()})


def _usual_core(settings: Settings) -> Core:
    """What XRAY_EXECUTABLE_PATH names, or the embedded core."""
    path = settings.xray_executable_path
    return EmbeddedCore(settings.assets_dir) if path is None else ExecutableCore(path, settings.assets_dir)


def run(settings: Settings) -> int:
    """Run the node in the foreground. Returns the exit code; raises OperatorError."""
    dependencies.check()
    # Whatever this process and its children make in the state folder is for this user alone.
    os.umask(0o077)
    keep_large_blocks_apart()
    identity.prepare_state_dir(settings)
    with identity.lock_state_dir(settings):
        who = identity.ensure_identity(settings)

        async def supervise() -> int:
            return await Supervisor(settings).run(who)

        result: Any = uvloop.run(supervise())
        return int(result)
