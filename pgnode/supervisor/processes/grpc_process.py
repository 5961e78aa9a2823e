"""One gRPC worker process, and the supervisor's end of the channel to it (:mod:`pgnode.bus.heartbeat`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable

import structlog

from pgnode.bus.heartbeat import BEAT_SECONDS, LEAVING, OTHERS_SERVE
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import LINES_VARIABLE, PROCESS
from pgnode.settings.handover import Handover
from pgnode.supervisor.processes.child import Child, ChildSpec
from pgnode.supervisor.processes.inheritance import InheritedProcess
from pgnode.supervisor.processes.pid_registry import PidRegistry

log = structlog.get_logger(__name__)

#: What a worker runs.
WORKER_MODULE = "pgnode.worker.grpc_worker"

#: Heartbeats that may be missing in a row before a worker counts as hung. Counted, not timed: when the supervisor itself was
#: held up, no worker is killed for it.
MISSED_MAX = 8

#: Seconds until one is killed that was told to end while others serve. It waits 13 at most, for handshakes and calls under way.
KILLED_BESIDE_OTHERS_SECONDS = 20.0

#: Bytes read from the channel at once.
READ_BYTES = 4096


class GrpcProcess:
    """One object is one process; another process is another object. Belongs to the supervisor's loop.

    Args:
        name: Its name in the log.
        handover: How it gets the settings.
        pids: Where its pid is noted while it runs.
        module: The module to run, with the number of the channel's descriptor as its argument.
        beat_seconds: Seconds between two heartbeats.
        left: The process, where the supervisor before left it; :meth:`take_over` takes it over.
        tell: Is given what it says.
    """

    def __init__(
        self,
        name: str,
        handover: Handover,
        pids: PidRegistry,
        *,
        module: str = WORKER_MODULE,
        beat_seconds: float = BEAT_SECONDS,
        left: InheritedProcess | None = None,
        tell: Callable[[Entry], None] = PROCESS.write,
    ) -> None:
        self._left = left
        if left is None:
            self._near, self._far = socket.socketpair()
        else:
            self._near, self._far = socket.socket(fileno=left.channel), socket.socket()
            self._far.close()
        self._near.setblocking(False)
        self._beat_seconds = beat_seconds
        self._beaten = asyncio.Event()
        self._leaving = asyncio.Event()
        self._pids = pids
        self._child = Child(
            ChildSpec(
                name,
                [sys.executable, "-m", module, str(self._far.fileno())],
                environment={
                    **os.environ,
                    **handover.environment,
                    LINES_VARIABLE: "json",
                    "GRPC_ENABLE_FORK_SUPPORT": "0",
                },
                ready=self._first_beat,
                pass_fds=(self._far.fileno(), *handover.pass_fds),
                log_name="grpc",
            ),
            pids,
            tell=tell,
        )

    def __repr__(self) -> str:
        return f"GrpcProcess({self._child})"

    @property
    def name(self) -> str:
        """Its name in the log."""
        return self._child.name

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return self._child.pid

    async def start(self) -> None:
        """Start it and wait until it takes calls.

        Raises:
            ChildFailedError: It did not come up; no process is left.
        """
        asyncio.get_running_loop().add_reader(self._near, self._read)
        try:
            await self._child.start()
        except BaseException:
            self.request_stop()
            raise
        finally:
            self._far.close()

    def take_over(self) -> bool:
        """Take over the process that the supervisor before left, in place of :meth:`start`.

        Returns:
            Whether there is such a process.
        """
        assert self._left is not None, "nothing was left"
        if not self._child.take_over(self._left):
            self._near.close()
            return False
        asyncio.get_running_loop().add_reader(self._near, self._read)
        return True

    def hand_over(self) -> InheritedProcess | None:
        """Leave it to the next supervisor; None when it does not run."""
        if self._near.fileno() < 0:
            return None
        asyncio.get_running_loop().remove_reader(self._near)
        left = self._child.hand_over(self._near.fileno())
        if left is not None:
            # Kept open, for the next supervisor.
            self._near.detach()
        return left

    async def ended_or_leaving(self) -> str | None:
        """Wait until it has ended, or asks for a replacement. One that hangs is killed.

        Returns:
            What the log says of its end; None when it asks for a replacement.
        """
        ended = asyncio.create_task(self._child.ended())
        hung = asyncio.create_task(self._hung())
        leaving = asyncio.create_task(self._leaving.wait())
        try:
            await asyncio.wait({ended, hung, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not ended.done():
                return None
            silent = hung.done() and not ended.done()
            if silent:
                log.warning("worker hangs, killing it", child=self.name, pid=self.pid)
                self._child.signal(signal.SIGKILL)
            reason = await ended
        finally:
            await end_tasks([ended, hung, leaving])
        self.forget()
        return "it hung" if silent else reason

    def forget(self) -> None:
        """Close the channel to one that has ended, and the note of its pid."""
        self.request_stop()
        self._pids.remove(self.name)

    def request_stop(self, *, others_serve: bool = False) -> None:
        """Tell it to end now, without waiting for a replacement.

        Args:
            others_serve: Whether its callers find another worker. Those who just connect are waited for then.
        """
        self._far.close()
        if self._near.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._near)
            if others_serve:
                # One that does not read any more ends as well without it.
                with contextlib.suppress(OSError):
                    self._near.send(OTHERS_SERVE)
            self._near.close()

    def kill_group(self) -> None:
        """End it by SIGKILL, without waiting."""
        self._child.kill_group()

    async def stop(self, *, others_serve: bool = False) -> None:
        """End it: calls under way get their grace.

        Args:
            others_serve: Whether its callers find another worker. It has longer to end then.
        """
        self.request_stop(others_serve=others_serve)
        await self._child.stop(seconds=KILLED_BESIDE_OTHERS_SECONDS if others_serve else None)

    async def _hung(self) -> None:
        """Return when it hangs."""
        missed = 0
        while missed < MISSED_MAX:
            self._beaten.clear()
            await asyncio.sleep(self._beat_seconds)
            missed = 0 if self._beaten.is_set() else missed + 1

    async def _first_beat(self) -> None:
        await self._beaten.wait()

    def _read(self) -> None:
        try:
            data = self._near.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # It has ended, or is about to.
            asyncio.get_running_loop().remove_reader(self._near)
        if LEAVING in data:
            self._leaving.set()
        if data:
            self._beaten.set()
