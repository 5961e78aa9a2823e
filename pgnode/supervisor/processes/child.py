"""One process that the supervisor keeps beside the core: started, watched, ended.

It is started through ``python -m pgnode.os_support.pdeath``, so that the kernel ends it when the supervisor is killed, and in
a session of its own, so that Ctrl-C reaches only the supervisor, which then ends everything in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from pgnode.errors import ChildFailedError
from pgnode.os_support import oom_score, pdeath, prepared
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.log_lines import Entry, read_line
from pgnode.os_support.log_output import PROCESS
from pgnode.os_support.request_signals import kept_from_children
from pgnode.supervisor.processes.inheritance import InheritedProcess, close_all
from pgnode.supervisor.processes.output_reader import OutputReader
from pgnode.supervisor.processes.own_process import OwnProcess
from pgnode.supervisor.processes.pid_registry import PidRegistry

log = structlog.get_logger(__name__)

#: Seconds a child has to end by itself.
STOP_SECONDS = 6.0

#: Seconds a child has to end by itself when another one has taken its place: it may have calls under way.
REPLACED_SECONDS = 20.0

#: Seconds a killed child has to disappear.
KILL_SECONDS = 5.0

#: Seconds within which a child must be ready.
READY_SECONDS = 20.0

#: Seconds to wait for the last output of a child that has ended.
OUTPUT_SECONDS = 1.0

#: Last lines of a child's output that go into the error when it does not come up.
TAIL_LINES = 15


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True)
class Attached:
    """What a process inherits beside the rest."""

    environment: Mapping[str, str]
    descriptors: Sequence[int]


def _nothing_attached() -> Attached:
    return Attached({}, ())


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
    #: Called before each start: what is known only then.
    attach: Callable[[], Attached] = _nothing_attached
    #: What it is called in the log, where it does not say itself; "": its name.
    log_name: str = ""


class Child:
    """A process made by one :class:`ChildSpec`, and by the same one again after it has ended.

    Belongs to the supervisor's loop. :class:`~pgnode.supervisor.processes.restarts.Restarter` keeps it up.

    Args:
        spec: What to run.
        pids: Where its pid is noted while it runs.
        ready_seconds: Seconds within which it must be ready.
        stop_seconds: Seconds it has to end by itself when it is stopped.
        tell: Is given what it says, but for a quiet one; prints it.
    """

    def __init__(
        self,
        spec: ChildSpec,
        pids: PidRegistry,
        *,
        ready_seconds: float = READY_SECONDS,
        stop_seconds: float = STOP_SECONDS,
        tell: Callable[[Entry], None] = PROCESS.write,
    ) -> None:
        self._spec = spec
        self._pids = pids
        self._ready_seconds = ready_seconds
        self._stop_seconds = stop_seconds
        self._tell = tell
        self._process: OwnProcess | None = None
        self._reader: OutputReader | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    def __repr__(self) -> str:
        return f"Child({self.name}, pid {self.pid})"

    @property
    def name(self) -> str:
        """Its name in the log."""
        return self._spec.name

    @property
    def command(self) -> tuple[str, ...]:
        """What it runs."""
        return tuple(self._spec.command)

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
            process, output = self._spawn()
        except OSError as error:
            raise ChildFailedError(f"{self.name} cannot be started: {error}") from None
        self._process = process
        self._reader = OutputReader(output, self._take_line)
        self._pids.put(self.name, process.pid)
        await self._wait_ready(process, self._reader)
        log.info("child is ready", child=self.name, pid=process.pid)

    # --- a restart in place -------------------------------------------------------------------------------------

    def hand_over(self, channel: int = -1) -> InheritedProcess | None:
        """Leave the process to the next supervisor; from now on this object does nothing with it.

        Args:
            channel: Descriptor of the channel to it; -1 for none.

        Returns:
            What is left; None when it does not run.
        """
        process, self._process = self._process, None
        if process is None or process.returncode is not None or self._reader is None:
            return None
        process.let_go()
        output, rest = self._reader.release()
        return InheritedProcess(self.name, process.pid, self.command, output, rest.decode("latin-1"), channel)

    def take_over(self, left: InheritedProcess) -> bool:
        """Take over a process that the supervisor before left.

        Args:
            left: What it left.

        Returns:
            Whether it runs.
        """
        try:
            process = OwnProcess(left.pid)
        except OSError:
            close_all([left.output])
            return False
        if process.has_ended():
            process.give_up()
            close_all([left.output])
            return False
        self._process = process
        self._reader = OutputReader(left.output, self._take_line, left.rest.encode("latin-1"))
        self._pids.put(self.name, process.pid)
        log.info("child is taken over", child=self.name, pid=process.pid)
        return True

    async def take_over_or_end(self, left: InheritedProcess | None) -> bool:
        """Take over a process that the supervisor before left, if it is what this one would run; else end it.

        Args:
            left: What it left; None for nothing.

        Returns:
            Whether it was taken over.
        """
        if left is None or not self.take_over(left):
            return False
        if left.command != self.command:
            log.info("child has other settings now, starting it anew", child=self.name)
            await self.stop()
        return self.pid is not None

    async def renew(self) -> None:
        """Start another process beside the one that runs, and end that one in order when the other is ready.

        Raises:
            ChildFailedError: The other did not come up. The one that runs goes on.
        """
        old = self._process
        try:
            await self.start()
        except ChildFailedError:
            self._process = old
            raise
        if old is not None:
            await self._end(old, REPLACED_SECONDS)
            if self.pid is not None:
                self._pids.put(self.name, self.pid)

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

    async def stop(self, *, seconds: float | None = None) -> None:
        """End it: SIGTERM, and its whole process group by SIGKILL if it does not obey.

        Args:
            seconds: How long it has to end by itself; None: as always.
        """
        if self._process is not None:
            await self._end(self._process, seconds)

    async def _end(self, process: OwnProcess, seconds: float | None = None) -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self._stop_seconds if seconds is None else seconds):
                    await process.wait()
            except TimeoutError:
                log.warning("child does not end, killing it", child=self.name)
        # What it started itself (Gunicorn's workers) is in its process group and must not stay either.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("child is still there after it was killed", child=self.name, pid=process.pid)
            return
        self._pids.remove(self.name)

    def _spawn(self) -> tuple[OwnProcess, int]:
        """Make the process; return it with a descriptor to read its output from. Raises OSError.

        By the main thread, whose end is what the process ends with. It becomes the program at once, so nothing waits for it.
        """
        attached = self._spec.attach()
        reader, writer = os.pipe()
        try:
            pid = self._begin(writer, attached)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        try:
            return OwnProcess(pid), reader
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reader)
            raise

    def _begin(self, output: int, attached: Attached) -> int:
        """Begin it; return its pid. Raises OSError."""
        environment = {**self._spec.environment, **attached.environment}
        descriptors = (*self._spec.pass_fds, *attached.descriptors)
        if pdeath.is_module(self._spec.command) and (waiting := prepared.take()) is not None:
            with contextlib.suppress(OSError):
                waiting.become(self._spec.command, environment, output, descriptors, self._spec.oom_points)
                return waiting.pid
        with kept_from_children():
            process = subprocess.Popen(
                pdeath.command(self._spec.command, self._spec.oom_points),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
                pass_fds=descriptors,
            )
        # From here on another object waits for its end.
        process.returncode = 0
        return process.pid

    async def _wait_ready(self, process: OwnProcess, reader: OutputReader) -> None:
        """Return when it is ready. Raises ChildFailedError, and then the process has ended."""
        ended = asyncio.create_task(process.wait())
        ready = asyncio.ensure_future(self._spec.ready())
        try:
            await asyncio.wait({ended, ready}, timeout=self._ready_seconds, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and ready.exception() is None:
                return
            if ended.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(OUTPUT_SECONDS):
                        await reader.ended.wait()
                reason = f"{self.name} ended with exit code {ended.result()} while starting"
            elif ready.done():
                reason = f"{self.name} cannot be reached: {ready.exception()}"
            else:
                reason = f"{self.name} was not ready within {self._ready_seconds:g} s"
            await self._end(process)
            raise ChildFailedError("\n".join([reason, *self._tail]))
        finally:
            await end_tasks([ended, ready])

    def _take_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        entry = read_line(text, self._spec.log_name or self.name, self.pid or 0, time.time())
        self._tail.extend([entry.summary, *(entry.traceback.split("\n") if entry.traceback else [])])
        if not self._spec.quiet:
            self._tell(entry)
