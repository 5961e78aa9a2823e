"""The supervisor from start to end: :func:`run` prepares, starts what the node consists of, and watches it until told to end.

The main loop is :meth:`Supervisor._main_loop`. What happens meanwhile is done by the tasks of :mod:`pgnode.supervisor.tasks`,
which go on whatever fails in them. Their work is put together in :mod:`pgnode.supervisor.composition`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

import structlog
import uvloop

from pgnode import dependencies
from pgnode.os_support import streams
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.environment import confine
from pgnode.os_support.limits import allow_many_files
from pgnode.os_support.malloc import keep_large_blocks_apart
from pgnode.os_support.oom_score import give_way_to_the_core
from pgnode.settings import Settings
from pgnode.settings.handover import hand_over
from pgnode.supervisor.composition import Components, compose
from pgnode.supervisor.host import identity
from pgnode.supervisor.host.banner import banner
from pgnode.supervisor.host.logging import set_up_logging
from pgnode.supervisor.maintenance.initial_core import select_initial_core
from pgnode.supervisor.persistence.import_v05 import take_over
from pgnode.supervisor.processes.external_redis import wait_for_redis
from pgnode.supervisor.processes.ports import check_gunicorn_ports
from pgnode.supervisor.tasks import CHANGES, TaskRunner
from pgnode.xray.process.multiprocess_compat import stop_resource_tracker

log = structlog.get_logger(__name__)

#: Seconds that ending everything may take; what is left then is killed.
SHUTDOWN_SECONDS = 9.0

#: Exit code of a supervisor that did not end in order.
EXIT_KILLED = 130


class Supervisor:
    """Starts, watches and ends a node.

    Args:
        parts: What the node consists of.
    """

    def __init__(self, parts: Components) -> None:
        self._parts = parts
        self._runner = TaskRunner()
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()

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
        # A terminal that is closed ends nobody's connections.
        loop.add_signal_handler(signal.SIGHUP, log.info, "SIGHUP has no effect")
        signalled = asyncio.create_task(self._signals.get())
        started = asyncio.create_task(self._start(who))
        failed = False
        try:
            await asyncio.wait({signalled, started}, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                # A core that was taken over has users' connections; one of this start has not.
                failed = started.exception() is None or self._took_over()
                await self._main_loop(signalled, started.result())
                failed = False
        finally:
            started.cancel()
            signalled.cancel()
            # A supervisor that fails leaves the core and its connections running: the next one takes the core over.
            code = await self._end(keep_core=failed)
        return code

    async def _start(self, who: identity.Identity) -> list[asyncio.Task[None]]:
        """Bring everything up; return the tasks that do the node's work from now on."""
        parts, settings, processes = self._parts, self._parts.settings, self._parts.processes
        await asyncio.to_thread(parts.certificate.first)
        stored = await parts.store.open()
        await processes.pids.end_orphans()
        await asyncio.to_thread(check_gunicorn_ports, settings)
        processes.grpc.reserve_port()
        if processes.valkey is not None:
            await processes.valkey.start()
        else:
            await wait_for_redis(parts.bus.redis, settings.redis_url or "")
            await parts.bus.ownership.acquire()
        if not stored.origin:
            stored = await take_over(settings, parts.store, processes.pids)
        parts.maintenance.restore()
        await select_initial_core(parts.core, parts.cores, settings.assets_dir)
        log.info("state loaded", users=len(stored.users), active=stored.active)
        await parts.traffic.figures.restore(stored)
        await parts.traffic.payouts.restore(stored)
        restored = asyncio.create_task(parts.node.restore(stored))
        await parts.system_loop.publish()
        await parts.figures_loop.publish_first()
        await asyncio.gather(processes.gunicorn.start(), processes.grpc.start())
        tasks = self._runner.start({spec: work for spec, work in parts.tasks.items() if spec is not CHANGES})
        # Changes wait until the stored state is restored.
        await restored
        tasks += self._runner.start({CHANGES: parts.tasks[CHANGES]})
        # In this order on a terminal, where both are one.
        await asyncio.to_thread(streams.drain)
        banner(settings, who, core=str(parts.core.core), version=parts.core.known_version, users=len(stored.users))
        identity.note_key_shown(settings)
        return tasks

    def _took_over(self) -> bool:
        """Whether the core was there before this supervisor."""
        running = self._parts.core.running
        return running is not None and running.adopted

    async def _main_loop(self, signalled: asyncio.Task[signal.Signals], tasks: list[asyncio.Task[None]]) -> None:
        """Wait for what ends the node: a signal, or an error in a task that only an operator can mend."""
        done, _ = await asyncio.wait({signalled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if signalled in done:
            log.info("ending", signal=signalled.result().name)
        await end_tasks(tasks)
        for task in done & set(tasks):
            task.result()

    async def _end(self, *, keep_core: bool) -> int:
        """End everything in order; a second signal ends it at once. Return the exit code."""
        again = asyncio.create_task(self._signals.get())
        ending = asyncio.create_task(self._end_in_order(keep_core=keep_core))
        try:
            done, _ = await asyncio.wait({again, ending}, timeout=SHUTDOWN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ending in done:
                ending.result()
                return 0
            log.warning("ending at once" if again in done else "ending takes too long, killing what is left")
            return EXIT_KILLED
        finally:
            await end_tasks([again, ending])
            self._kill_all(keep_core=keep_core)
            stop_resource_tracker()

    async def _end_in_order(self, *, keep_core: bool) -> None:
        parts, processes = self._parts, self._parts.processes
        await asyncio.gather(processes.gunicorn.stop(), processes.grpc.stop())
        await parts.maintenance.close()
        if not keep_core:
            await parts.node.shut_down()
        await parts.traffic.storing.store_now()
        await parts.committer.close()
        await parts.store.close()
        await parts.bus.server.close()
        if processes.valkey is None:
            await parts.bus.ownership.release()
        parts.bus.answers.drop()
        await parts.bus.redis.aclose()
        if processes.valkey is not None:
            await processes.valkey.stop()

    def _kill_all(self, *, keep_core: bool) -> None:
        """Kill what is left, without waiting."""
        processes, running = self._parts.processes, self._parts.core.running
        for child in (processes.gunicorn, processes.valkey):
            if child is not None:
                child.kill_group()
        processes.grpc.kill_all()
        if running is not None and not keep_core:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, signal.SIGKILL)


def run(settings: Settings) -> int:
    """Run the node in the foreground.

    Args:
        settings: The node's settings.

    Returns:
        The exit code.

    Raises:
        OperatorError: The node cannot run.
    """
    dependencies.check()
    streams.make_safe()
    # Children inherit both.
    allow_many_files()
    confine(os.environ, settings.child_variables)
    core_oom_score_adj = give_way_to_the_core(os.environ)
    # Whatever this process and its children make in the state folder is for this user alone.
    os.umask(0o077)
    keep_large_blocks_apart()
    identity.prepare_state_dir(settings)
    with identity.lock_state_dir(settings):
        who = identity.ensure_identity(settings)
        handover = hand_over(settings)

        async def supervise() -> int:
            parts = compose(settings, handover, core_oom_score_adj)
            set_up_logging(settings.debug, parts.pump.node_line)
            return await Supervisor(parts).run(who)

        result: Any = uvloop.run(supervise())
        return int(result)
