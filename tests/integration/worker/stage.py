"""Real parts for tests of workers: Valkey, Gunicorn with TLS, and a supervisor of which the test decides every answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from pgnode.bus import indexed
from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.log_stream import put_lines
from pgnode.bus.server import CommandServer
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import (
    BACKEND,
    ONLINE,
    STATE,
    STATS_INBOUNDS,
    STATS_OUTBOUNDS,
    STATS_USERS,
    SYSTEM,
    NodeStatus,
)
from pgnode.bus.state import State
from pgnode.os_support.aio import end_tasks
from pgnode.settings import Settings, load
from pgnode.supervisor.host import identity
from pgnode.supervisor.processes import valkey
from pgnode.testing.panel import Auth, NoAnswerError, PanelClient
from pgnode.testing.ports import free_port
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.support.processes import is_running

#: Short, so that tests of them are; long enough for a machine with other things to do.
HEADER_TIMEOUT_SECONDS = 1.5
BODY_TIMEOUT_SECONDS = 2.0
MIB = 1024 * 1024
LOG_LINES_KEPT = 10_000

RUNNING = NodeStatus(
    state=State.RUNNING,
    core_ready=True,
    core_version="26.10.10",
    node_version="0.3.0",
    core_api_error="",
    core_run=1,
)

Handler = Callable[[Command], Reply]

#: What a look at a node that is coming up may raise.
NOT_YET: tuple[type[Exception], ...] = (OSError, NoAnswerError, TimeoutError)


def stat(name: str, link: str, direction: str, value: int) -> pb.Stat:
    return pb.Stat(name=name, link=link, type=direction, value=value)


class StubSupervisor:
    """The supervisor's end of the bus. Records every command; answers by ``handlers``, else with nothing wrong."""

    def __init__(self, url: str) -> None:
        self.keys = Keys("pgnode")
        self.commands: list[Command] = []
        self.handlers: dict[Kind, Handler] = {}
        self.status = RUNNING
        self._redis = connect(url)
        self._server = CommandServer(url, self.keys)
        self._snapshots = SnapshotWriter(self.keys)
        self._task: asyncio.Task[None] | None = None

    def of_kind(self, kind: Kind) -> list[Command]:
        return [command for command in self.commands if command.kind is kind]

    async def start(self) -> None:
        self._task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        if self._task is not None:
            await end_tasks([self._task])
        await self._server.close()
        await self._redis.aclose()

    async def publish(self, bodies: Mapping[str, bytes]) -> None:
        """New revisions of these snapshots."""
        pipe = self._redis.pipeline()
        for name, body in bodies.items():
            self._snapshots.put(pipe, name, body)
        await pipe.execute()

    async def publish_all(self) -> None:
        """One of everything: users alice and bob, of whom alice is online from two addresses."""
        alice = pb.StatResponse(
            stats=[stat("alice", "traffic", "uplink", 10), stat("alice", "traffic", "downlink", 20)]
        )
        bob = pb.StatResponse(stats=[stat("bob", "traffic", "uplink", 5)])
        online = pb.StatsOnlineIpListResponse(name="alice", ips={"192.0.2.1": 100, "192.0.2.2": 200})
        inbound = pb.StatResponse(stats=[stat("VLESS", "traffic", "uplink", 7)])
        await self.publish(
            {
                STATE: self.status.encode(),
                SYSTEM: pb.SystemStatsResponse(mem_total=1000, cpu_cores=2).SerializeToString(),
                BACKEND: pb.BackendStatsResponse(num_goroutine=42, uptime=7).SerializeToString(),
                STATS_USERS: _block({"alice": alice.SerializeToString(), "bob": bob.SerializeToString()}),
                STATS_INBOUNDS: _block({"VLESS": inbound.SerializeToString()}),
                STATS_OUTBOUNDS: _block({}),
                ONLINE: _block({"alice": online.SerializeToString()}),
            }
        )

    async def set_state(self, state: str, core_api_error: str = "") -> None:
        self.status = replace(self.status, state=State(state), core_api_error=core_api_error)
        await self.publish({STATE: self.status.encode()})

    async def log_lines(self, lines: Sequence[bytes]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        put_lines(pipe, self.keys, lines, LOG_LINES_KEPT)
        await pipe.execute()

    async def _serve(self) -> None:
        while True:
            try:
                for command in await self._server.take():
                    self.commands.append(command)
                    handler = self.handlers.get(command.kind)
                    reply = handler(command) if handler is not None else Reply()
                    pipe = self._redis.pipeline()
                    self._server.answer(pipe, [(command, reply)])
                    await pipe.execute()
                    self._server.release([command])
            except BUS_ERRORS:
                self._server.lost_connection()
                await asyncio.sleep(0.05)


def _block(parts: Mapping[str, bytes]) -> bytes:
    return indexed.pack((indexed.name_hash(name), part) for name, part in parts.items())


class Stage:
    """Valkey, the stub and Gunicorn with its workers, in a folder of their own. ``async with Stage() as stage:``."""

    def __init__(self, *, workers: int = 2, max_body_mib: int = 1, env: Mapping[str, str] | None = None) -> None:
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

    async def __aenter__(self) -> Stage:
        try:
            identity.prepare_state_dir(self.settings)
            identity.ensure_identity(self.settings)
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
                async with asyncio.timeout(10):
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
        self, *, auth: Auth = "x-api-key", api_key: str | None = None, timeout_seconds: float = 10
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
        async with asyncio.timeout(15):
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
        async with self.panel(timeout_seconds=3) as panel:
            return bool((await panel.info()).node_version)

    @property
    def environment(self) -> dict[str, str]:
        """What workers are started with."""
        names = {name.upper() for name in Settings.model_fields}
        return {name: value for name, value in os.environ.items() if name.upper() not in names} | self._overrides

    async def _start_gunicorn(self) -> None:
        with self._output.open("wb") as output:
            self._gunicorn = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                "python:pgnode.worker.gunicorn_conf",
                "pgnode.worker.app:application",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )
        running = self._gunicorn

        async def up() -> bool:
            if running.returncode is not None:
                raise RuntimeError(f"Gunicorn ended with exit code {running.returncode}:\n{self.output}")
            return await self.answers()

        await eventually(up, "Gunicorn answers", 30, errors=NOT_YET)
