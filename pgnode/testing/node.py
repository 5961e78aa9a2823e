"""A private node in a process of its own: ``python -m pgnode run`` on free ports, in a folder that goes with it.

The node's environment holds nothing of the caller's settings, and it runs in a folder of its own, so that neither an
operator's variables nor a ``.env`` file reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from pgnode.errors import OperatorError
from pgnode.os_support.log_lines import read_line
from pgnode.settings import Settings, load
from pgnode.supervisor.host.identity import prepare_state_dir
from pgnode.testing.panel import Auth, NoAnswerError, PanelClient
from pgnode.testing.ports import free_port

#: A node answers within a few seconds; a machine under load gets more.
READY_TIMEOUT_SECONDS = 90.0
#: ``pgnode run`` promises to end within 10 s; a machine under load gets more.
STOP_TIMEOUT_SECONDS = 45.0
#: Time limit of a call, longer than the panel's own, for a machine under load.
CALL_TIMEOUT_SECONDS = 30.0
#: Pause between two looks at something that has no event to wait for.
POLL_SECONDS = 0.05
#: What a node says when its workers serve.
WORKERS_READY = "child is ready child=gunicorn"

#: What one says that has no workers.
READY = "the node has started"

#: The same of each gRPC worker.
GRPC_WORKER_READY = "child is ready child=grpc-"
#: Where this variable is set, nodes of this process find a certificate when they start for the first time. It is of the kind that
#: they would make themselves, in a process which takes as long as a sixth of their start.
CERTIFICATES_VARIABLE = "PGNODE_TESTING_CERTIFICATES"

#: Settings that say what is in a certificate, or that it is another one.
_CERTIFICATE_SETTINGS = {"NODE_HOST", "CERT_NAMES", "SSL_CERT_FILE", "SSL_KEY_FILE"}

#: Lines of the node's own output that are kept.
_OUTPUT_LINES = 500


class Launched(Protocol):
    """The process of a node, as asyncio has processes."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """Both its outputs."""

    def send_signal(self, number: int, /) -> None:
        """Return a signal for it. ProcessLookupError."""

    async def wait(self) -> int:
        """Wait for its end and return the exit code."""


#: Starts ``pgnode run`` with an environment and in a folder; None where it is to be started as an operator would.
Launch = Callable[[Mapping[str, str], Path], Awaitable[Launched | None]]

#: Ways to start nodes that are tried first.
_launches: Final[list[Launch]] = []


def launch_nodes_with(launch: Launch) -> None:
    """Have nodes of this process started so, but for those with another Python and those with a certificate of their own."""
    _launches.append(launch)


class NodeFailedError(Exception):
    """The node did not start, or ended by itself. ``str(error)`` holds its output."""


class NodeProcess:
    """One node. ``async with NodeProcess() as node:`` starts it, waits until it answers, and ends it.

    ``env`` is laid over the settings a private node gets. ``state_dir``, when given, is the caller's and stays; the node
    makes it if it is missing, and works in the folder above it. ``api_key`` is one of its own unless it is given. ``on_line``
    is called with each line that it prints, ``python`` runs it. With ``own_certificate`` it makes its own, whatever
    :data:`CERTIFICATES_VARIABLE` says, and is started as an operator would. :meth:`start` and :meth:`stop` may also be used by
    hand, more than once, to restart a node.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        state_dir: Path | None = None,
        api_key: str | None = None,
        on_line: Callable[[str], object] | None = None,
        python: str = sys.executable,
        own_certificate: bool = False,
    ) -> None:
        self._own_dir = Path(tempfile.mkdtemp(prefix="pgn")) if state_dir is None else None
        self.state_dir = state_dir or Path(self._own_dir or "", "state")
        self.host = "127.0.0.1"
        self.port, self.api_port, self.grpc_port = free_port(), free_port(), free_port()
        self.api_key = api_key or str(uuid.uuid4())
        self._on_line = on_line
        self._python = python
        self._own_certificate = own_certificate
        self._env = dict(env or {})
        self._process: Launched | None = None
        self._reading: asyncio.Task[None] | None = None
        self.output: deque[str] = deque(maxlen=_OUTPUT_LINES)
        self._workers_ready = False
        #: It has workers of its own.
        self._serves = True
        #: gRPC workers that were not told to be ready yet.
        self._grpc_awaited = 0

    def __repr__(self) -> str:
        return f"NodeProcess(pid {self.pid}, port {self.port}, {self.state_dir})"

    @property
    def pid(self) -> int:
        """The supervisor's process id; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    @property
    def returncode(self) -> int | None:
        """The supervisor's exit code; None while it runs."""
        return self._process.returncode if self._process is not None else None

    @property
    def ca_file(self) -> Path:
        """The certificate that the node made itself."""
        return self.state_dir / "tls" / "cert.pem"

    @property
    def run_dir(self) -> Path:
        """The folder of its sockets and records."""
        return self.state_dir / "run"

    @property
    def output_text(self) -> str:
        """What the node printed, its last lines."""
        return "\n".join(self.output)

    def environment(self) -> dict[str, str]:
        """Return the node's environment: the caller's without settings, and a private node's own."""
        settings = {name.upper() for name in Settings.model_fields}
        kept = {name: value for name, value in os.environ.items() if name.upper() not in settings}
        private = {
            "NODE_HOST": self.host,
            "SERVICE_PORT": str(self.port),
            "API_PORT": str(self.api_port),
            "GRPC_PORT": str(self.grpc_port),
            "STATE_DIR": str(self.state_dir),
            "API_KEY": self.api_key,
        }
        return {**kept, **private, **self._env}

    async def __aenter__(self) -> NodeProcess:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._own_dir is not None:
            await asyncio.to_thread(shutil.rmtree, self._own_dir, ignore_errors=True)

    async def start(self) -> None:
        """Start it and wait until it answers. NodeFailedError with its output when it does not."""
        await self.spawn()
        await self.wait_ready()

    async def spawn(self) -> None:
        """Start it without waiting."""
        self.output.clear()
        environment = self.environment()
        if CERTIFICATES_VARIABLE in os.environ and not self._own_certificate:
            await asyncio.to_thread(self._lay_certificate)
        self._workers_ready = False
        served = environment.get("SERVICE_PROTOCOL", "both")
        self._serves = served != "none"
        self._grpc_awaited = int(environment.get("GRPC_WORKERS", "1")) if served not in ("rest", "none") else 0
        self._process = await self._launch(environment)
        assert self._process.stdout is not None
        self._reading = asyncio.create_task(self._read_output(self._process.stdout))

    async def _launch(self, environment: Mapping[str, str]) -> Launched:
        folder = self.state_dir.parent
        if self._python == sys.executable and not self._own_certificate:
            for launch in _launches:
                if (launched := await launch(environment, folder)) is not None:
                    return launched
        return await asyncio.create_subprocess_exec(
            self._python,
            "-m",
            "pgnode",
            "run",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )

    def _lay_certificate(self) -> None:
        """Make what a first start would, where this is one and nobody chose the certificate's content."""
        if self.state_dir.exists() or not _CERTIFICATE_SETTINGS.isdisjoint(self._env):
            return
        # Not needed otherwise, and large.
        from pgnode.supervisor.host.own_certificate import make_certificate  # noqa: PLC0415

        # Where that is not possible the node says so.
        with contextlib.suppress(OperatorError):
            settings = load(state_dir=self.state_dir, node_host=self.host, ssl_cert_file=None, ssl_key_file=None)
            prepare_state_dir(settings)
            make_certificate(settings)

    async def wait_ready(self, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> None:
        """Wait until gRPC and ``GET /info`` answer. NodeFailedError with the node's output when it ends or takes too long.

        One without workers has just to be up. The node's own workers, that is: those of one that was killed a moment ago may
        still be there.
        """
        last: BaseException | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    if self.returncode is not None:
                        await self._end_reading()
                        raise NodeFailedError(f"the node ended with exit code {self.returncode}:\n{self.output_text}")
                    if self._workers_ready and not self._serves:
                        return
                    if self._workers_ready and self._grpc_awaited <= 0:
                        try:
                            async with self.panel() as panel:
                                await panel.info()
                                return
                        except (OSError, NoAnswerError) as error:  # no certificate, no port, or no worker behind it yet
                            last = error
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise NodeFailedError(
                f"the node did not answer within {timeout_seconds:g} s ({last!r}):\n{self.output_text}"
            ) from None

    def panel(
        self, *, auth: Auth = "x-api-key", api_key: str | None = None, timeout_seconds: float = CALL_TIMEOUT_SECONDS
    ) -> PanelClient:
        """Return a panel that knows this node's certificate and key. OSError before the node has made its certificate."""
        return PanelClient(
            self.host,
            self.port,
            ca_file=self.ca_file,
            api_key=self.api_key if api_key is None else api_key,
            auth=auth,
            timeout_seconds=timeout_seconds,
        )

    def send_signal(self, number: signal.Signals) -> None:
        """Return a signal for the supervisor; one that has ended gets none."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def wait(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """Wait for its end and return the exit code. TimeoutError."""
        if self._process is None:
            raise RuntimeError("the node was not started")
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
            self.send_signal(signal.SIGKILL)
            return await self.wait()

    async def _end_reading(self) -> None:
        """Return the rest of its output. A process it left behind may hold the pipe open, hence the time limit."""
        if self._reading is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reading, 5.0)

    async def _read_output(self, output: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await output.readline()
            except ValueError:  # a line longer than asyncio keeps: its rest comes as further lines
                continue
            if not line:
                return
            self.output.append(line.decode("utf-8", "replace").rstrip())
            # Also where it prints JSON.
            said = read_line(self.output[-1], "", 0, 0.0).summary
            if (WORKERS_READY if self._serves else READY) in said:
                self._workers_ready = True
            elif GRPC_WORKER_READY in said:
                self._grpc_awaited -= 1
            if self._on_line is not None:
                self._on_line(self.output[-1])
