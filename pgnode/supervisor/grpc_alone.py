"""gRPC workers without a supervisor beside them (``pgnode worker grpc``): kept up as a supervisor does it, and by its signals."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from pgnode.errors import ChildFailedError, SettingsError
from pgnode.os_support.aio import end_tasks
from pgnode.settings.alone import LASTING
from pgnode.settings.handover import Handover, hand_over
from pgnode.supervisor.host.service_manager import ServiceManager
from pgnode.supervisor.processes.grpc_process import WORKER_MODULE
from pgnode.supervisor.processes.grpc_workers import GrpcWorkers
from pgnode.supervisor.processes.pid_registry import PidRegistry
from pgnode.supervisor.processes.restarts import Restarter

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: The signals that are obeyed: end; settings anew; one more; one fewer.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)

#: Workers at most, as the settings allow.
WORKERS_MAX: Final = 64


class GrpcAlone:
    """Belongs to one event loop.

    Args:
        settings: The workers' settings.
        handover: How they get them.
        again: Reads the settings once more; SettingsError where one is not allowed.
        manager: Who started this process, and wants to be told.
        module: The module that a worker runs.
        restarter: Brings workers back.
    """

    def __init__(
        self,
        settings: Settings,
        handover: Handover,
        again: Callable[[], Settings],
        manager: ServiceManager,
        *,
        module: str = WORKER_MODULE,
        restarter: Restarter | None = None,
    ) -> None:
        self._settings = settings
        self._handover = handover
        self._again = again
        self._manager = manager
        self._workers = GrpcWorkers(settings, handover, PidRegistry(None), restarter or Restarter(), module=module)
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()

    def __repr__(self) -> str:
        return f"GrpcAlone({self._workers!r})"

    async def run(self) -> int:
        """Serve until told to end.

        Returns:
            The exit code.

        Raises:
            PortInUseError: Somebody else has the port.
            ChildFailedError: A worker does not come up at the start.
        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        self._workers.reserve_port()
        keeping: asyncio.Task[None] | None = None
        try:
            await self._workers.start()
            keeping = asyncio.create_task(self._workers.keep())
            # Workers that are added are kept, too, once that has begun.
            await asyncio.sleep(0)
            log.info("gRPC workers serve", port=self._settings.grpc_listen[1], workers=len(self._workers.pids))
            self._manager.ready()
            while (number := await self._signals.get()) not in (signal.SIGTERM, signal.SIGINT):
                await self._obey(number)
            log.info("ending", signal=number.name)
            self._manager.stopping()
        finally:
            if keeping is not None:
                await end_tasks([keeping])
            await self._workers.stop()
        return 0

    async def _obey(self, number: signal.Signals) -> None:
        """Do what a signal asks for; what cannot be done is said, and changes nothing."""
        try:
            if number == signal.SIGTTIN:
                await self._change(1)
            elif number == signal.SIGTTOU:
                await self._change(-1)
            else:
                await self._take_settings()
        except (ChildFailedError, SettingsError, OSError) as error:
            log.warning("not done, all goes on as before", signal=number.name, error=str(error))

    async def _change(self, by: int) -> None:
        """Have so many workers more, or fewer. Raises ChildFailedError."""
        if not by:
            return
        for _ in range(abs(by)):
            if by > 0 and len(self._workers.pids) < WORKERS_MAX:
                await self._workers.add()
            elif by < 0:
                await self._workers.remove()
        log.info("workers were changed", workers=len(self._workers.pids))

    async def _take_settings(self) -> None:
        """Take the settings anew, and replace all workers. Raises SettingsError, ChildFailedError, OSError."""
        found = self._again()
        for name in (*LASTING, "service_protocol"):
            if getattr(found, name) != getattr(self._settings, name):
                raise SettingsError(f"{name.upper()} is another one now, which needs a stop and a start")
        written = hand_over(found, Path(tempfile.gettempdir()))
        # Workers that run have read theirs.
        os.dup2(written.descriptor, self._handover.descriptor)
        os.close(written.descriptor)
        self._settings = found
        self._manager.reloading()
        left = await self._workers.restart()
        await self._change(found.grpc_worker_count - len(self._workers.pids))
        if left:
            log.warning("workers of the settings before go on", pids=left)
        self._manager.ready()
