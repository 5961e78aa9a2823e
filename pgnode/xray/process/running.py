"""One running core: its process, its output, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from pgnode.os_support.fault_points import async_fault_point
from pgnode.os_support.pidfd import Pidfd
from pgnode.xray.process import run_folder
from pgnode.xray.process.record import CoreRecord, write_record
from pgnode.xray.process.runner import Child

log = structlog.get_logger(__name__)

#: Seconds a process has between SIGKILL and its end. The kernel may need a moment to free its memory.
KILL_SECONDS: Final = 5.0

#: Seconds until a record that could not be written is tried again.
RECORD_SECONDS: Final = 2.0


class RunningCore:
    """One core process. Belongs to the event loop of its first ``wait`` or ``terminate``; ``close`` it after its end.

    ``log_fd`` is a non-blocking descriptor for reading the core's output; it reports its end once the core has ended.
    """

    def __init__(
        self,
        record: CoreRecord,
        run_dir: Path,
        process: Pidfd,
        log_fd: int,
        child: Child | None,
        *,
        record_seconds: float = RECORD_SECONDS,
    ) -> None:
        self._record_seconds = record_seconds
        #: Writes the record that could not be written.
        self._writing: asyncio.Task[None] | None = None
        self.record = record
        self.run_dir = run_dir
        self.log_fd = log_fd
        self._process = process
        self._child = child
        self._ended: asyncio.Future[int | None] | None = None

    def __repr__(self) -> str:
        origin = "adopted" if self.adopted else "own"
        return f"<RunningCore {self.record.kind} pid={self.pid} {origin} {'running' if self.is_running() else 'ended'}>"

    @property
    def pid(self) -> int:
        """The pid of the process; another process may have it once this one has ended."""
        return self.record.pid

    @property
    def config_hash(self) -> str:
        """What the record says about the config, for whoever adopts the core."""
        return self.record.config_hash

    @property
    def adopted(self) -> bool:
        """Whether an earlier supervisor started it; its exit code is known only where that one was this process."""
        return self._child is None

    @property
    def up_seconds(self) -> float:
        """For how long the process has been there, by the clock that counts from the start of the machine."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.record.start_ticks / os.sysconf("SC_CLK_TCK")

    @property
    def socket_path(self) -> Path:
        """The unix socket of the core's API."""
        return self.run_dir / run_folder.SOCKET_NAME

    @property
    def log_path(self) -> Path:
        """The FIFO that takes the core's output."""
        return self.run_dir / run_folder.FIFO_NAME

    async def set_config_hash(self, config_hash: str) -> None:
        """Write into the record that the config was changed while the core runs; where that is not possible now, later."""
        self.record = replace(self.record, config_hash=config_hash)
        if not await self._write_record() and self._writing is None:
            self._writing = asyncio.create_task(self._write_later())

    async def _write_record(self) -> bool:
        record = self.record
        try:
            await async_fault_point("core.record_again")
            await asyncio.to_thread(write_record, self.run_dir, record)
        except OSError as error:
            if self._writing is None:
                log.warning(
                    "the core's record cannot be written, trying again", folder=str(self.run_dir), error=str(error)
                )
            return False
        return record == self.record

    async def _write_later(self) -> None:
        try:
            while self.is_running():
                await asyncio.sleep(self._record_seconds)
                if await self._write_record():
                    log.info("the core's record is written", folder=str(self.run_dir))
                    break
        finally:
            self._writing = None

    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.fileno() >= 0 and not self._process.has_ended()

    async def wait(self) -> int | None:
        """Wait for the end of the process.

        Returns:
            The exit code, negative for a signal; None when the process is no child of this one.

        Raises:
            ValueError: It was closed.
        """
        if self._ended is None:
            if self._process.fileno() < 0:
                raise ValueError(f"{self!r} was closed")
            loop = asyncio.get_running_loop()
            self._ended = loop.create_future()
            loop.add_reader(self._process.fileno(), self._on_end, loop)
        return await asyncio.shield(self._ended)

    def _on_end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._process.fileno())
        if self._ended is not None and not self._ended.done():
            # One that was taken over is a child still where the supervisor was restarted in place, and wants to be reaped.
            self._ended.set_result(self._child.exit_code() if self._child is not None else self._process.reap())

    async def terminate(self, grace_seconds: float, *, kill_seconds: float = KILL_SECONDS) -> int | None:
        """End the process, by SIGKILL when SIGTERM did not do it in time; then clear the core's folder.

        Args:
            grace_seconds: Seconds between SIGTERM and SIGKILL.
            kill_seconds: Seconds between SIGKILL and the end.

        Returns:
            The exit code, as ``wait`` returns it.

        Raises:
            TimeoutError: The process is still there after SIGKILL.
        """
        code = await self.end(grace_seconds, kill_seconds=kill_seconds)
        run_folder.clear(self.run_dir, self.record)
        return code

    async def end(self, grace_seconds: float, *, kill_seconds: float = KILL_SECONDS) -> int | None:
        """Do what ``terminate`` does, and take and raise the same, but leave the folder as it is."""
        ended = asyncio.ensure_future(self.wait())
        try:
            self.send_signal(signal.SIGTERM)
            done, _ = await asyncio.wait({ended}, timeout=grace_seconds)
            if not done:
                self.send_signal(signal.SIGKILL)
                done, _ = await asyncio.wait({ended}, timeout=kill_seconds)
            if not done:
                raise TimeoutError(f"core process {self.pid} did not end {kill_seconds:g} s after SIGKILL")
            return ended.result()
        finally:
            ended.cancel()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process, never to another one that got its pid."""
        self._process.send(number)

    def close(self) -> None:
        """Close the descriptors. A core that still runs goes on running."""
        if self._writing is not None:
            self._writing.cancel()
        if self._ended is not None and not self._ended.done():
            self._ended.get_loop().remove_reader(self._process.fileno())
            self._ended.cancel()
        self._process.close()
        if self.log_fd >= 0:
            os.close(self.log_fd)
            self.log_fd = -1
