"""API workers without a supervisor beside them, in a process of their own: ``python -m pgnode worker rest|grpc`` on free ports.

Their supervisor is wherever their REDIS_URL leads; here that is nobody's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import psutil

from pgnode.os_support.children import children
from pgnode.settings import Settings
from pgnode.testing.node import CALL_TIMEOUT_SECONDS, READY_TIMEOUT_SECONDS, STOP_TIMEOUT_SECONDS
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.ports import free_port
from tests.support.polling import eventually

#: Lines of its output that are kept.
_OUTPUT_LINES = 500


class FarWorkerFailedError(Exception):
    """It did not serve, or ended by itself. ``str(error)`` holds its output."""


def _name(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return str(psutil.Process(pid).name())
    return ""


class FarWorker:
    """``async with FarWorker("rest", …) as worker:`` starts it, waits until it takes connections, and ends it.

    Args:
        kind: What it serves.
        redis_url: Where it meets its supervisor.
        cert_file: The certificate that it serves.
        key_file: The private key.
        env: Laid over the settings that it gets: API_KEY, say.
        host: The address it listens on.
        before: A command that it is started by: ``ip netns exec …``, say.
        python: What runs it.
    """

    def __init__(
        self,
        kind: Literal["rest", "grpc"],
        *,
        redis_url: str,
        cert_file: Path,
        key_file: Path,
        env: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        before: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        self.kind = kind
        self.host = host
        self.port, self.api_port = free_port(), free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="pgn"))
        self._cert_file = cert_file
        self._before = before
        self._python = python
        self._env = {
            "REDIS_URL": redis_url,
            "SSL_CERT_FILE": str(cert_file),
            "SSL_KEY_FILE": str(key_file),
            "NODE_HOST": host,
            "SERVICE_PORT": str(self.port if kind == "rest" else free_port()),
            "API_PORT": str(self.api_port),
            "GRPC_PORT": str(self.port if kind == "grpc" else free_port()),
            "STATE_DIR": str(self.folder / "state"),
            "WEB_CONCURRENCY": "1",
            **(env or {}),
        }
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.output: deque[str] = deque(maxlen=_OUTPUT_LINES)

    def __repr__(self) -> str:
        return f"FarWorker({self.kind}, pid {self.pid}, port {self.port})"

    @property
    def pid(self) -> int:
        """The process id of what was started: Gunicorn's master, or what keeps gRPC workers; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    @property
    def master_pid(self) -> int:
        """Its process id also where another command has started it and stays beside it."""
        found = self.pid
        if self._before and _name(found) == Path(self._before[0]).name:
            return next(iter(children(found)), found)
        return found

    def kill(self) -> None:
        """Kill it as by ``kill -9``."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.master_pid, signal.SIGKILL)

    @property
    def returncode(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.returncode if self._process is not None else None

    @property
    def output_text(self) -> str:
        """What it printed, its last lines."""
        return "\n".join(self.output)

    def environment(self) -> dict[str, str]:
        """Return its environment: the caller's without settings, and its own."""
        settings = {name.upper() for name in Settings.model_fields}
        kept = {name: value for name, value in os.environ.items() if name.upper() not in settings}
        return {**kept, **self._env}

    async def __aenter__(self) -> FarWorker:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def start(self) -> None:
        """Start it and wait until it takes connections. FarWorkerFailedError with its output when it does not."""
        await self.spawn()
        await self.wait_ready()

    async def spawn(self, *arguments: str, without: str = "") -> None:
        """Start it without waiting; ``arguments`` follow its kind, and the setting ``without`` is not set."""
        self.output.clear()
        environment = {name: value for name, value in self.environment().items() if name != without}
        self._process = await asyncio.create_subprocess_exec(
            *self._before,
            self._python,
            "-m",
            "pgnode",
            "worker",
            self.kind,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reading = asyncio.create_task(self._read_output(self._process.stdout))

    async def wait_ready(self) -> None:
        """Wait until it answers, whatever it says. FarWorkerFailedError with its output when it ends before that."""
        await eventually(self._answers, "it answers", READY_TIMEOUT_SECONDS, errors=(OSError, NoAnswerError))

    async def _answers(self) -> bool:
        if self.returncode is not None:
            await self._end_reading()
            raise FarWorkerFailedError(f"it ended with exit code {self.returncode}:\n{self.output_text}")
        await self._try()
        return True

    async def _try(self) -> None:
        if self.kind == "grpc":
            _, writer = await asyncio.open_connection(self.host, self.port)
            writer.close()
            return
        async with self.panel(api_key="") as panel:
            with contextlib.suppress(PanelError):
                await panel.info()

    def panel(self, *, api_key: str, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> PanelClient:
        """Return a panel that knows its certificate."""
        return PanelClient(
            self.host,
            self.port,
            ca_file=self._cert_file,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
        )

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended gets none."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.master_pid, number)

    async def wait(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """Wait for its end and return the exit code. TimeoutError."""
        if self._process is None:
            raise RuntimeError("it was not started")
        async with asyncio.timeout(timeout_seconds):
            code = await self._process.wait()
        await self._end_reading()
        return code

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """End it, by force when it does not end in time; returns the exit code, None when it never started."""
        if self._process is None:
            return None
        self.send_signal(number)
        try:
            return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()

    async def _end_reading(self) -> None:
        if self._reading is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reading, 5.0)

    async def _read_output(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            self.output.append(line.decode("utf-8", "replace").rstrip())
