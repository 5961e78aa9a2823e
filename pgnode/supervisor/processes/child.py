"""The processes that the supervisor keeps beside the core: the embedded Valkey and Gunicorn's master.

Each is started through ``python -m pgnode.os_support.pdeath``, so that the kernel ends it should the supervisor be killed, and
in a session of its own, so that Ctrl-C reaches only the supervisor, which then ends everything in order. A child that died is
brought back by its restart policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import psutil
import structlog

from pgnode.errors import ChildFailedError
from pgnode.os_support import pdeath
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.files import write_atomically
from pgnode.supervisor.processes.restart_policy import GiveUp, RestartPolicy

log = structlog.get_logger(__name__)

#: Seconds a child has to end by itself.
STOP_SECONDS = 6.0

#: Seconds within which a child must be ready.
READY_SECONDS = 20.0

#: Last lines of a child's output that go into the error when it does not come up.
TAIL_LINES = 15


class Child:
    """One process that is started, watched, brought back and ended. Belongs to the supervisor's loop."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[None]],
        prepare: Callable[[], None] = lambda: None,
        records: PidRegistry,
        quiet: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._command = pdeath.command(command)
        self._environment = environment
        self._ready = ready
        self._prepare = prepare
        self._records = records
        self._quiet = quiet
        self._pass_fds = pass_fds
        self._policy = RestartPolicy(max_deaths=10)
        self._process: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._stopping = False

    def __repr__(self) -> str:
        return f"Child({self.name}, pid {self.pid})"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it is ready; raises ChildFailedError with its last lines when it is not."""
        self._tail.clear()
        await asyncio.to_thread(self._prepare)
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self._environment),
            start_new_session=True,
            pass_fds=self._pass_fds,
            limit=1024 * 1024,
        )
        self._records.put(self.name, self._process.pid)
        self._reader = asyncio.create_task(self._read(self._process))
        ended = asyncio.create_task(self._process.wait())
        ready = asyncio.ensure_future(self._ready())
        try:
            await asyncio.wait({ended, ready}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                log.info("child is ready", child=self.name, pid=self._process.pid)
                return
            if ended.done():
                await asyncio.wait({self._reader}, timeout=1)
                reason = f"{self.name} ended with exit code {ended.result()} while starting"
            else:
                reason = f"{self.name} was not ready within {READY_SECONDS:g} s"
                await self.stop()
            raise ChildFailedError("\n".join([reason, *self._tail]))
        finally:
            await end_tasks([ended, ready])

    async def keep(self) -> None:
        """Bring it back whenever it dies, until cancelled; raises ChildFailedError when it does not stay up."""
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if self._stopping:
                return
            while True:
                decision = self._policy.died(loop.time(), None, random.random())  # noqa: S311 - jitter, not a secret
                if isinstance(decision, GiveUp):
                    raise ChildFailedError("\n".join([f"{self.name} is given up: {decision.reason}", *self._tail]))
                log.warning(
                    "child died, bringing it back", child=self.name, code=code, pause=round(decision.delay_seconds, 2)
                )
                await asyncio.sleep(decision.delay_seconds)
                try:
                    await self.start()
                    break
                except ChildFailedError as error:
                    log.warning("child did not come up", child=self.name, error=str(error))

    async def wait(self) -> int:
        """Wait for its end and return the exit code; for who keeps it by other rules than :meth:`keep`."""
        assert self._process is not None
        return await self._process.wait()

    @property
    def last_lines(self) -> list[str]:
        """The end of its output."""
        return list(self._tail)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """End it: SIGTERM, and its whole process group by SIGKILL if it does not obey."""
        self._stopping = True
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                log.warning("child does not end, killing it", child=self.name)
        # What it started itself (Gunicorn's workers) is in its process group and must not stay either.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        self._records.remove(self.name)
        self._stopping = False

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # a line over the limit
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._tail.append(text)
            if not self._quiet:
                sys.stderr.write(text + "\n")


class PidRegistry:
    """The pids of running children with their start times, in a file, so that a later supervisor can clear them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, tuple[int, float]] = {}

    def put(self, name: str, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._records[name] = (pid, psutil.Process(pid).create_time())
        self._write()

    def remove(self, name: str) -> None:
        self._records.pop(name, None)
        self._write()

    def _write(self) -> None:
        # Processes end with the machine, so their record need not outlive a crash of it.
        write_atomically(self._path, json.dumps(self._records), durable=False)

    async def clear_leftovers(self) -> None:
        """End what an earlier supervisor left behind, and wait until it is gone."""
        try:
            found: dict[str, tuple[int, float]] = json.loads(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return
        left = []
        for name, (pid, started_at) in found.items():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process = psutil.Process(pid)
                # A pid may have been given to somebody else since.
                if abs(process.create_time() - started_at) < 1.0:
                    log.warning("ending what an earlier run left behind", child=name, pid=pid)
                    left += [process, *process.children(recursive=True)]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if left:
            await asyncio.to_thread(psutil.wait_procs, left, 5)
        self._path.unlink(missing_ok=True)
