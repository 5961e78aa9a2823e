"""Real parts for tests of workers: Valkey, Gunicorn with TLS, and a supervisor of which the test decides every answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

from pgnode.bus.connection import connect
from pgnode.settings import Settings, load
from pgnode.supervisor.processes import valkey
from pgnode.supervisor.processes.gunicorn import CONFIGURATION
from pgnode.testing.panel import Auth, NoAnswerError, PanelClient
from pgnode.testing.ports import free_port
from pgnode.testing.processes import is_running
from pgnode.wire import service_pb2 as pb
from tests.support.identities import make_identity
from tests.support.polling import eventually
from tests.support.stub_supervisor import StubSupervisor

#: Short, so that tests of them are; long enough for a test that stands still for seconds between two packets.
HEADER_TIMEOUT_SECONDS = 6.0
BODY_TIMEOUT_SECONDS = 6.0
MIB = 1024 * 1024

#: What a look at a node that is coming up may raise.
NOT_YET: tuple[type[Exception], ...] = (OSError, NoAnswerError, TimeoutError)


def user(email: str, *inbounds: str) -> pb.User:
    """A user as callers send it."""
    return pb.User(email=email, inbounds=inbounds or ("VLESS",))


class Stage:
    """Valkey, the stub and Gunicorn with its workers, in a folder of their own. ``async with Stage() as stage:``."""

    def __init__(
        self,
        *,
        workers: int = 2,
        max_body_mib: int = 1,
        env: Mapping[str, str] | None = None,
        open_files: int | None = None,
    ) -> None:
        # pytest's own folders have paths too long for unix sockets.
        self.folder = Path(tempfile.mkdtemp(prefix="pgn"))
        self.api_key = str(uuid.uuid4())
        self.port, self.api_port, self.grpc_port = free_port(), free_port(), free_port()
        self._overrides = {
            "NODE_HOST": "127.0.0.1",
            "SERVICE_PORT": str(self.port),
            "API_PORT": str(self.api_port),
            "GRPC_PORT": str(self.grpc_port),
            "STATE_DIR": str(self.folder / "state"),
            "API_KEY": self.api_key,
            "WEB_CONCURRENCY": str(workers),
            "MAX_BODY_MIB": str(max_body_mib),
            "HEADER_TIMEOUT_SECONDS": str(HEADER_TIMEOUT_SECONDS),
            "BODY_TIMEOUT_SECONDS": str(BODY_TIMEOUT_SECONDS),
            **(env or {}),
        }
        self.settings: Settings = load(**{name.lower(): value for name, value in self._overrides.items()})
        self.supervisor = StubSupervisor(self.settings.bus_url)
        self._valkey: asyncio.subprocess.Process | None = None
        self._gunicorn: asyncio.subprocess.Process | None = None
        self._output = self.folder / "gunicorn.log"
        self._open_files = open_files

    async def __aenter__(self) -> Stage:
        try:
            make_identity(self.settings)
            await self.start_valkey()
            await self.supervisor.start()
            await self.supervisor.publish_all()
            await self._start_gunicorn()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        left = self.worker_pids()
        if self._gunicorn is not None and self._gunicorn.returncode is None:
            self._gunicorn.terminate()
            try:
                async with asyncio.timeout(30):
                    await self._gunicorn.wait()
            except TimeoutError:
                self._gunicorn.kill()
                await self._gunicorn.wait()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.supervisor.close()
        await self.kill_valkey()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    @property
    def output(self) -> str:
        """What Gunicorn and its workers printed."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    @property
    def master_pid(self) -> int:
        assert self._gunicorn is not None
        return self._gunicorn.pid

    def worker_pids(self) -> list[int]:
        """Workers that run."""
        if self._gunicorn is None or self._gunicorn.returncode is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self._gunicorn.pid).children() if is_running(child.pid)]
        return []

    def panel(
        self, *, auth: Auth = "x-api-key", api_key: str | None = None, timeout_seconds: float = 30
    ) -> PanelClient:
        """A panel with this stage's certificate and key."""
        return PanelClient(
            "127.0.0.1",
            self.port,
            ca_file=self.settings.cert_file,
            api_key=self.api_key if api_key is None else api_key,
            auth=auth,
            timeout_seconds=timeout_seconds,
        )

    async def start_valkey(self) -> None:
        self._valkey = await asyncio.create_subprocess_exec(
            *valkey.command(self.settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            await valkey.ready(self.settings)

    async def kill_valkey(self) -> None:
        """As by ``kill -9``."""
        if self._valkey is not None and self._valkey.returncode is None:
            self._valkey.kill()
            await self._valkey.wait()

    async def commands_waiting(self) -> int:
        """Commands in the stream that nobody has answered."""
        client = connect(self.settings.bus_url, connections=1)
        try:
            return int(await client.xlen(self.supervisor.keys.commands))
        finally:
            await client.aclose()

    async def new_supervisor(self) -> None:
        """Another stub in the place of one that was closed."""
        self.supervisor = StubSupervisor(self.settings.bus_url)
        await self.supervisor.start()
        await self.supervisor.publish_all()

    async def kill_master(self) -> None:
        assert self._gunicorn is not None
        self._gunicorn.kill()
        await self._gunicorn.wait()

    def signal_master(self, number: signal.Signals) -> None:
        assert self._gunicorn is not None
        self._gunicorn.send_signal(number)

    async def answers(self) -> bool:
        """Whether a request is answered on a new connection."""
        async with self.panel(timeout_seconds=10) as panel:
            return bool((await panel.info()).node_version)

    @property
    def environment(self) -> dict[str, str]:
        """What workers are started with."""
        names = {name.upper() for name in Settings.model_fields}
        return {name: value for name, value in os.environ.items() if name.upper() not in names} | self._overrides

    def limit_files(self) -> None:
        """Give the process that is about to become a worker, or Gunicorn, no more open files than this stage's."""
        if self._open_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._open_files, self._open_files))

    async def _start_gunicorn(self) -> None:
        with self._output.open("wb") as output:
            self._gunicorn = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                f"file:{CONFIGURATION}",
                "pgnode.worker.app:application",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=self.limit_files,
            )
        running = self._gunicorn

        async def up() -> bool:
            if running.returncode is not None:
                raise RuntimeError(f"Gunicorn ended with exit code {running.returncode}:\n{self.output}")
            return await self.answers()

        await eventually(up, "Gunicorn answers", 60, errors=NOT_YET)
