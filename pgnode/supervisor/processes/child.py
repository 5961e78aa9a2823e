"""One process that the supervisor keeps beside the core: started, watched, ended.

It is started through ``python -m pgnode.os_support.pdeath``, so that the kernel ends it when the supervisor is killed, and in
a session of its own, so that Ctrl-C reaches only the supervisor, which then ends everything in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from pgnode.errors import ChildFailedError
from pgnode.os_support import oom_score, pdeath
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.log_text import printable
from pgnode.supervisor.processes.pid_registry import PidRegistry

log = structlog.get_logger(__name__)

#: Seconds a child has to end by itself.
STOP_SECONDS = 6.0

#: Seconds a killed child has to disappear.
KILL_SECONDS = 5.0

#: Seconds within which a child must be ready.
READY_SECONDS = 20.0

#: Seconds to wait for the last output of a child that has ended.
OUTPUT_SECONDS = 1.0

#: Last lines of a child's output that go into the error when it does not come up.
TAIL_LINES = 15

#: A line of output that is longer is left out.
LINE_MAX_BYTES = 1024 * 1024

#: Characters of a line that are printed at most.
LINE_MAX_CHARACTERS = 8_000


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run, and how to see that it works."""

    #: Its name in the log and in the registry.
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    #: Returns when the process works; it is cancelled when the time is up. May raise ChildFailedError or OSError.
    ready: Callable[[], Awaitable[None]]
    #: Called in a thread before each start. May raise OSError.
    prepare: Callable[[], None] = _nothing
    #: Keep its output for errors only, and do not print it.
    quiet: bool = False
    #: Descriptors that the process inherits.
    pass_fds: Sequence[int] = ()
    #: By how much sooner than the supervisor it is ended when memory runs out.
    oom_points: int = oom_score.EXPENDABLE_POINTS


class Child:
    """A process made by one :class:`ChildSpec`, and by the same one again after it has ended.

    Belongs to the supervisor's loop. :class:`~pgnode.supervisor.processes.restarts.Restarter` keeps it up.

    Args:
        spec: What to run.
        pids: Where its pid is noted while it runs.
        ready_seconds: Seconds within which it must be ready.
        stop_seconds: Seconds it has to end by itself when it is stopped.
    """

    def __init__(
        self,
        spec: ChildSpec,
        pids: PidRegistry,
        *,
        ready_seconds: float = READY_SECONDS,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self._spec = spec
        self._pids = pids
        self._ready_seconds = ready_seconds
        self._stop_seconds = stop_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    def __repr__(self) -> str:
        return f"Child({self.name}, pid {self.pid})"

    @property
    def name(self) -> str:
        """Its name in the log."""
        return self._spec.name

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def last_lines(self) -> list[str]:
        """The end of its output."""
        return list(self._tail)

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ChildFailedError: It cannot be started, ended at once, or was not ready in time; the text ends with its last
                lines. No process is left.
        """
        self._tail.clear()
        try:
            await asyncio.to_thread(self._spec.prepare)
            process = await self._spawn()
        except OSError as error:
            raise ChildFailedError(f"{self.name} cannot be started: {error}") from None
        self._process = process
        self._reader = asyncio.create_task(self._read(process))
        self._pids.put(self.name, process.pid)
        await self._wait_ready(process, self._reader)
        log.info("child is ready", child=self.name, pid=process.pid)

    async def ended(self) -> str:
        """Wait for its end.

        Returns:
            What the log says of it.
        """
        return f"exit code {await self.wait()}"

    async def wait(self) -> int:
        """Wait for its end.

        Returns:
            The exit code, negative for a signal.
        """
        assert self._process is not None, "not started"
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill_group(self) -> None:
        """End it and all that it started by SIGKILL, without waiting."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End it: SIGTERM, and its whole process group by SIGKILL if it does not obey."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self._stop_seconds):
                    await process.wait()
            except TimeoutError:
                log.warning("child does not end, killing it", child=self.name)
        # What it started itself (Gunicorn's workers) is in its process group and must not stay either.
        self.kill_group()
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("child is still there after it was killed", child=self.name, pid=process.pid)
            return
        self._pids.remove(self.name)

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Make the process. Raises OSError."""
        return await asyncio.create_subprocess_exec(
            *pdeath.command(self._spec.command, self._spec.oom_points),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self._spec.environment),
            start_new_session=True,
            pass_fds=self._spec.pass_fds,
            limit=LINE_MAX_BYTES,
        )

    async def _wait_ready(self, process: asyncio.subprocess.Process, reader: asyncio.Task[None]) -> None:
        """Return when it is ready. Raises ChildFailedError, and then the process has ended."""
        ended = asyncio.create_task(process.wait())
        ready = asyncio.ensure_future(self._spec.ready())
        try:
            await asyncio.wait({ended, ready}, timeout=self._ready_seconds, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and ready.exception() is None:
                return
            if ended.done():
                await asyncio.wait({reader}, timeout=OUTPUT_SECONDS)
                reason = f"{self.name} ended with exit code {ended.result()} while starting"
            elif ready.done():
                reason = f"{self.name} cannot be reached: {ready.exception()}"
            else:
                reason = f"{self.name} was not ready within {self._ready_seconds:g} s"
            await self.stop()
            raise ChildFailedError("\n".join([reason, *self._tail]))
        finally:
            await end_tasks([ended, ready])

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take the output as it comes, to its end."""
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # a line over the limit
            if not line:
                return
            text = printable(line.decode(errors="replace").rstrip(), LINE_MAX_CHARACTERS)
            self._tail.append(text)
            if not self._spec.quiet:
                sys.stderr.write(text + "\n")
