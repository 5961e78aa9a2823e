"""The supervisor from start to end: :func:`run` prepares, starts what the node consists of, and watches it until told to end.

The main loop is :meth:`Supervisor._main_loop`. What happens meanwhile is done by the tasks of :mod:`pgnode.supervisor.tasks`,
which go on whatever fails in them. Their work is put together in :mod:`pgnode.supervisor.composition`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from pgnode import __version__, dependencies
from pgnode.bus.keys import Keys
from pgnode.errors import OperatorError, TaskFailedError
from pgnode.os_support import prepared, streams
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.collector import spare_what_is_loaded
from pgnode.os_support.environment import confine
from pgnode.os_support.fault_points import async_fault_point
from pgnode.os_support.limits import allow_many_files
from pgnode.os_support.malloc import keep_large_blocks_apart
from pgnode.os_support.oom_score import FIRST_VARIABLE, give_way_to_the_core
from pgnode.settings import bus_password, shown_url
from pgnode.settings.handover import hand_over
from pgnode.supervisor import ending
from pgnode.supervisor.composition import Components, compose
from pgnode.supervisor.control.progress import Phase
from pgnode.supervisor.host import identity
from pgnode.supervisor.host.banner import banner, ready_fields
from pgnode.supervisor.host.logging import begin_logging, is_for_programs, set_up_logging
from pgnode.supervisor.host.restored_state import BEFORE, finish_restore
from pgnode.supervisor.host.service_manager import ServiceManager
from pgnode.supervisor.maintenance.initial_core import select_initial_core
from pgnode.supervisor.persistence.import_v05 import IMPORTED, set_old_folder_aside, take_over
from pgnode.supervisor.processes import valkey
from pgnode.supervisor.processes.external_redis import wait_for_redis
from pgnode.supervisor.processes.inheritance import NOTHING, Inheritance
from pgnode.supervisor.processes.inheritance import take as inheritance_of
from pgnode.supervisor.processes.restart_budget import spend
from pgnode.supervisor.processes.restart_in_place import (
    HELD_SIGNALS,
    RestartStatus,
    VersionTrial,
    become_next,
    hold_signals,
    release_signals,
)
from pgnode.supervisor.processes.unknown_children import find_unknown, reap
from pgnode.supervisor.restart_requests import AT_REST_SECONDS, RestartRequests
from pgnode.supervisor.tasks import CHANGES, CONTROL, GRPC_WORKERS, GUNICORN, SERVICE, SESSIONS, TaskSpec, Work
from pgnode.xray.process import run_folder

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds that ending everything may take; what is left then is killed.
SHUTDOWN_SECONDS = 9.0

#: Exit code of a supervisor that did not end in order.
EXIT_KILLED = 130

#: Exit code of a supervisor that could not become the next one.
EXIT_NOT_RESTARTED = 6

#: Seconds within which the event loop takes note of a signal.
SIGNALS_SECONDS = 0.01


class Supervisor:
    """Starts, watches and ends a node.

    Args:
        parts: What the node consists of.
        environment: The environment of the start, with which it is restarted in place.
        env_file: The file of settings that it was started with.
        manager: Who started this process; None: nobody that wants to be told.
        at_rest_seconds: Seconds that a start or a stop which is under way may delay that.
    """

    def __init__(
        self,
        parts: Components,
        environment: Mapping[str, str] | None = None,
        env_file: Path | None = None,
        manager: ServiceManager | None = None,
        *,
        at_rest_seconds: float = AT_REST_SECONDS,
    ) -> None:
        self._parts = parts
        self._runner = parts.runner
        self._manager = manager if manager is not None else ServiceManager()
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._reaping: asyncio.Task[None] | None = None
        settings, restarts = parts.settings, parts.inheritance.restarts
        self._requests = RestartRequests(
            VersionTrial(settings.state_dir, parts.handover, environment, env_file),
            parts.node,
            parts.processes.api.reread,
            settings.run_dir,
            RestartStatus.of_this_process(settings.run_dir, restarts),
            manager=self._manager,
            at_rest_seconds=at_rest_seconds,
        )
        #: What is left to the supervisor that this one has to become; None where it just ends.
        self.left: Inheritance | None = None

    async def run(self, who: identity.Identity) -> int:
        """Start, watch, end.

        Args:
            who: The node's key and certificate, for the banner.

        Returns:
            The exit code.

        Raises:
            OperatorError: The node cannot run.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        # Also what comes when a terminal is closed: that ends nobody's connections.
        loop.add_signal_handler(signal.SIGHUP, self._requests.ask_reload)
        loop.add_signal_handler(signal.SIGUSR2, self._requests.ask_restart)
        # Others open their log files anew for it; this node does so without being told.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        release_signals()
        signalled = asyncio.create_task(self._signals.get())
        control = self._runner.start(self._all_along())
        started = asyncio.create_task(self._start(who))
        keep_core, failures = False, None
        try:
            await asyncio.wait({signalled, started}, return_when=asyncio.FIRST_COMPLETED)
            if self._parts.inheritance is not NOTHING:
                # A core is there that has to end as well, so it has to be found.
                await asyncio.wait({started}, timeout=AT_REST_SECONDS)
            if started.done():
                # A core that was taken over has users' connections; one of this start has not.
                keep_core = started.exception() is None or self._took_over()
                restart = await self._main_loop(signalled, started.result())
                keep_core, failures = restart, self._parts.inheritance.failures if restart else None
        except OperatorError as error:
            if not isinstance(error, TaskFailedError) or (failures := self._spend(error)) is None:
                raise
        except Exception as error:
            if not keep_core or (failures := self._spend(error)) is None:
                raise
        finally:
            started.cancel()
            signalled.cancel()
            # A supervisor that fails leaves the core and its connections running: the next one takes the core over.
            if failures is None:
                code = await self._end(keep_core=keep_core)
            else:
                code = await self._leave(failures)
            await end_tasks(control)
        return code

    def _all_along(self) -> dict[TaskSpec, Work]:
        """Return the tasks that begin first and end last."""
        manager = self._manager
        found: dict[TaskSpec, Work] = {CONTROL: self._parts.tasks[CONTROL]}
        if manager.listens:
            found[SERVICE] = lambda: manager.keep(self._status)
        return found

    def _status(self) -> str:
        """Say in half a line how the node is."""
        node = self._parts.node
        return self._parts.progress.line(node.state, len(node.users.table), drained=node.drain.order is not None)

    def _tell_status(self) -> None:
        """Tell the service manager how the node is now, and not with the next beat."""
        if self._manager.listens:
            self._manager.beat(self._status())

    def _spend(self, error: Exception) -> tuple[float, ...] | None:
        """Return when there were restarts because of errors, with one for this error; None where it is not allowed."""
        failures = spend(self._parts.inheritance.failures, time.monotonic())
        if failures is None:
            log.error("the supervisor fails again and again, ending; the core goes on", error=repr(error))
        else:
            log.error("the supervisor cannot go on, restarting it in place", error=repr(error), exc_info=error)
        return failures

    async def _start(self, who: identity.Identity) -> list[asyncio.Task[None]]:
        """Bring everything up; return the tasks that do the node's work from now on."""
        parts, settings, processes = self._parts, self._parts.settings, self._parts.processes
        progress = parts.progress
        progress.enter(Phase.STARTING, "the store")
        await asyncio.to_thread(parts.certificate.first)
        stored = await parts.store.open()
        await async_fault_point("supervisor.store_opened")
        await self._find_children()
        progress.enter(Phase.STARTING, "the bus")
        await processes.api.open()
        bus_is_new = False
        if processes.valkey is not None:
            if not await processes.valkey.take_over_or_end(parts.inheritance.process(processes.valkey.name)):
                await processes.valkey.start()
                bus_is_new = True
        else:
            shown, keys = shown_url(settings.redis_url or ""), Keys(settings.bus_prefix)
            await wait_for_redis(parts.bus.redis, settings.bus_url, shown, keys)
            await parts.bus.ownership.acquire()
        await async_fault_point("supervisor.bus_ready")
        if not stored.origin:
            stored = await take_over(settings, parts.store, processes.pids)
        elif stored.origin == IMPORTED:
            await asyncio.to_thread(set_old_folder_aside, settings)
        parts.maintenance.restore("" if parts.inheritance is NOTHING else __version__, bus_is_new=bus_is_new)
        own_assets = settings.xray_assets_path is None
        await select_initial_core(parts.core, parts.cores, settings.assets_dir, own_assets=own_assets)
        await async_fault_point("supervisor.core_selected")
        log.info("state loaded", users=len(stored.users), active=stored.active)
        parts.traffic.inbounds.restore(asked=stored.inbounds_asked)
        await parts.traffic.figures.restore(stored)
        await parts.traffic.payouts.restore(stored)
        progress.enter(Phase.STARTING, "the core and the API workers")
        restored = asyncio.create_task(parts.node.restore(stored))
        await parts.system_loop.publish()
        await parts.figures_loop.publish_first()
        # Whoever asks waits until it is known whether a core runs, and is not told before that none does.
        await parts.node.introduce(bus_is_new=bus_is_new)
        await processes.api.start()
        # Changes, and what an earlier supervisor had promised of sessions, wait until the stored state is restored.
        restoring, later, begun = {CHANGES, SESSIONS}, {GUNICORN, GRPC_WORKERS}, {CONTROL}
        after = restoring | later | begun
        tasks = self._runner.start({spec: work for spec, work in parts.tasks.items() if spec not in after})
        await restored
        tasks += self._runner.start({spec: work for spec, work in parts.tasks.items() if spec in restoring})
        trouble = await processes.api.renew() if processes.api.taken_over else ""
        tasks += self._runner.start({spec: work for spec, work in parts.tasks.items() if spec in later})
        # In this order on a terminal, where both are one.
        await asyncio.to_thread(streams.drain)
        if parts.inheritance is NOTHING:
            core, version = str(parts.core.core), parts.core.known_version
            log.info("the node has started", audit="node", version=__version__)
            if is_for_programs():
                log.info("the node is ready", **ready_fields(settings, core=core, version=version))
            else:
                banner(settings, who, core=core, version=version, users=len(stored.users))
                identity.note_key_shown(settings)
        else:
            log.info("restarted in place", audit="node", restarts=parts.inheritance.restarts, version=__version__)
        prepared.dismiss()
        progress.enter(Phase.READY)
        self._manager.ready()
        self._tell_status()
        await self._requests.say(trouble=trouble)
        return tasks

    async def _find_children(self) -> None:
        """End what another supervisor left behind, and watch what this process left itself."""
        parts = self._parts
        await parts.processes.pids.end_orphans(parts.inheritance.pids)
        if parts.inheritance is not NOTHING:
            unknown = await asyncio.to_thread(find_unknown, parts.inheritance.pids | prepared.pids(), self._is_core)
            self._reaping = asyncio.create_task(reap(unknown))

    def _is_core(self, pid: int) -> bool:
        return run_folder.is_core(pid, self._parts.settings.run_dir)

    def _took_over(self) -> bool:
        """Whether the core was there before this supervisor."""
        running = self._parts.core.running
        return running is not None and running.adopted

    async def _main_loop(self, signalled: asyncio.Task[signal.Signals], tasks: list[asyncio.Task[None]]) -> bool:
        """Wait for what ends this supervisor: a signal, or an error in a task that no new attempt would mend.

        Args:
            signalled: Done with the signal that ends the node.
            tasks: What does the node's work.

        Returns:
            Whether it has to be restarted in place.
        """
        asked = asyncio.create_task(self._requests.wait())
        try:
            done, _ = await asyncio.wait({signalled, asked, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks([asked])
        if signalled in done:
            log.info("ending", audit="node", signal=signalled.result().name)
        await end_tasks(tasks)
        for task in done & set(tasks):
            task.result()
        return asked in done and signalled not in done

    async def _leave(self, failures: tuple[float, ...]) -> int:
        """Put everything into the hands of the next supervisor. Return the exit code, for where there is none."""
        parts = self._parts
        parts.progress.enter(Phase.RESTARTING)
        closing = asyncio.create_task(ending.close(parts))
        try:
            await asyncio.wait({closing}, timeout=SHUTDOWN_SECONDS)
            if closing.done() and (error := closing.exception()) is not None:
                log.error("not everything was closed", error=repr(error))
        finally:
            await end_tasks([closing, *([self._reaping] if self._reaping is not None else [])])
        self.left = ending.what_is_left(parts, failures)
        loop = asyncio.get_running_loop()
        # What came until now gets into the queue.
        await asyncio.sleep(SIGNALS_SECONDS)
        for number in HELD_SIGNALS:
            loop.remove_signal_handler(number)
        hold_signals([self._signals.get_nowait() for _ in range(self._signals.qsize())])
        return EXIT_NOT_RESTARTED

    async def _end(self, *, keep_core: bool) -> int:
        """End everything in order; a second signal ends it at once. Return the exit code."""
        self._parts.progress.enter(Phase.ENDING)
        self._manager.stopping()
        self._tell_status()
        again = asyncio.create_task(self._signals.get())
        ended = asyncio.create_task(ending.end_in_order(self._parts, keep_core=keep_core))
        try:
            done, _ = await asyncio.wait({again, ended}, timeout=SHUTDOWN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ended in done:
                ended.result()
                return 0
            log.warning("ending at once" if again in done else "ending takes too long, killing what is left")
            return EXIT_KILLED
        finally:
            await end_tasks([again, ended])
            ending.kill_all(self._parts, keep_core=keep_core)


def run(settings: Settings, env_file: Path | None = None) -> int:
    """Run the node in the foreground.

    Args:
        settings: The node's settings.
        env_file: The file that some of them are from; read again at a reload.

    Returns:
        The exit code.

    Raises:
        OperatorError: The node cannot run.
    """
    inheritance = inheritance_of(os.environ) or NOTHING
    environment = dict(os.environ)
    manager = ServiceManager.take(os.environ)
    dependencies.check()
    streams.make_safe()
    begin_logging(settings, environment)
    # Children inherit both.
    allow_many_files()
    confined = confine(os.environ, settings.child_variables)
    core_oom_score_adj = give_way_to_the_core(os.environ)
    environment.update({name: value for name, value in os.environ.items() if name == FIRST_VARIABLE})
    # Whatever this process and its children make in the state folder is for this user alone.
    os.umask(0o077)
    keep_large_blocks_apart()
    spare_what_is_loaded()
    identity.prepare_state_dir(settings)
    with identity.lock_state_dir(settings, inheritance.lock) as lock:
        if finish_restore(settings.state_dir):
            log.warning("a restore that had been interrupted was finished", before=str(settings.state_dir / BEFORE))
        who = identity.ensure_identity(settings)
        if settings.redis_url is None and inheritance.process(valkey.NAME) is None:
            # Before anybody is told the address of the bus. A Valkey that goes on has its password.
            bus_password.make(settings.run_dir)
        handover = hand_over(settings)
        left: Inheritance | None = None

        async def supervise() -> int:
            nonlocal left
            trial = VersionTrial(settings.state_dir, handover, environment, env_file)
            parts = compose(settings, handover, core_oom_score_adj, inheritance, trial)
            set_up_logging(parts.node_log, parts.pump.node_line)
            if "GUNICORN_CMD_ARGS" in confined:
                log.warning("GUNICORN_CMD_ARGS has no effect: GUNICORN_CONF names a file with settings of Gunicorn")
            supervisor = Supervisor(parts, environment, env_file, manager)
            code = await supervisor.run(who)
            left = supervisor.left
            return code

        result: Any = uvloop.run(supervise())
        if left is not None:
            streams.drain()
            try:
                become_next(replace(left, lock=lock.fileno()), environment)
            except OSError as error:
                log.error("the supervisor cannot become the next one, ending; the core goes on", error=str(error))
        return int(result)
