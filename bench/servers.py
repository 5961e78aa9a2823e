"""The sides of a comparison: a node, a bare app under the node's Gunicorn configuration, a bare core."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.bare_app import ANSWERS_VARIABLE, write_answers
from bench.load import REPOSITORY
from bench.registry import Bench
from pgnode.supervisor.processes.gunicorn import CONFIGURATION
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.ports import free_port
from pgnode.xray.client.api import CoreApi
from pgnode.xray.process.record import RECORD_NAME

START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.02


class SideFailedError(Exception):
    """The other side of a comparison did not start."""


def node(bench: Bench, **env: str) -> NodeProcess:
    """A private node with the bench's number of workers; ``env`` is laid over its settings."""
    return NodeProcess(env={"WEB_CONCURRENCY": str(bench.workers), **env})


def core_pid(beside: NodeProcess) -> int:
    """Return the process of the core that a node runs."""
    return int(json.loads((beside.run_dir / RECORD_NAME).read_text(encoding="utf-8"))["pid"])


async def started(bench: Bench, panel: PanelClient, config: Mapping[str, Any], users: list[Any]) -> None:
    """Start the node, and note which core it runs."""
    info = await panel.start(config, users)
    bench.facts["core"] = f"Xray {info.core_version}"


@contextlib.asynccontextmanager
async def bare_app(beside: NodeProcess, answers: Mapping[str, bytes]) -> AsyncIterator[int]:
    """A bare Falcon app that answers GET of each path with its bytes; yields its port on loopback.

    It runs with the settings of the node ``beside`` (number of workers, certificate) and the same Gunicorn configuration:
    worker class, event loop, HTTP parser, TLS. SideFailedError when it does not answer.
    """
    folder = Path(tempfile.mkdtemp(prefix="pgnbare"))
    port = free_port()
    try:
        write_answers(folder, answers)
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                f"file:{CONFIGURATION}",
                "bench.bare_app:application",
            ),
            env=beside.environment()
            | {"SERVICE_PORT": str(port), "API_PORT": str(free_port())}
            | {ANSWERS_VARIABLE: str(folder), "PYTHONPATH": str(REPOSITORY)},
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # As the node's: a kernel that shares the processors out by session (sched_autogroup) treats both alike.
            start_new_session=True,
        )
        try:
            await _wait_for_port(process, port)
            yield port
        finally:
            await _end(process, signal.SIGTERM)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _wait_for_port(process: asyncio.subprocess.Process, port: int) -> None:
    """Until a worker completes a TLS handshake. SideFailedError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                except OSError:
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return
    except TimeoutError:
        raise SideFailedError(f"the bare app did not answer within {START_TIMEOUT_SECONDS:g} s") from None
    assert process.stderr is not None
    text = (await process.stderr.read()).decode("utf-8", "replace")
    raise SideFailedError(f"the bare app ended with exit code {process.returncode}: {text.strip()[-500:]}")


async def start_bare_core(config: Mapping[str, Any]) -> float:
    """Seconds from the start of a process with the embedded core until its API answers; the core is ended again.

    ``config`` is a finished one, as a node writes it to GENERATED_CONFIG_PATH. SideFailedError when it does not answer.
    """
    async with bare_core(config) as bare:
        return bare.seconds


@dataclass(frozen=True, slots=True)
class BareCore:
    """A core that no node keeps."""

    #: From the start of its process until its API answered.
    seconds: float
    #: Of its API.
    socket: Path
    pid: int
    #: What it runs.
    config: Mapping[str, Any]

    @property
    def ports(self) -> dict[str, int]:
        """Ports of its inbounds, by tag."""
        return {one["tag"]: one["port"] for one in self.config["inbounds"] if isinstance(one.get("port"), int)}


@contextlib.asynccontextmanager
async def bare_core(config: Mapping[str, Any]) -> AsyncIterator[BareCore]:
    """A process with the embedded core, whose output nobody reads.

    The API of ``config`` moves to a socket of its own and its inbounds to free ports. SideFailedError when it does not
    answer.
    """
    folder = Path(tempfile.mkdtemp(prefix="pgncore"))
    try:
        own = moved(config, folder / "api.sock")
        text = json.dumps(own).encode()
        begun = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pgnode.testing.client_core", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=folder,
            # As the node's, see above.
            start_new_session=True,
        )
        try:
            try:
                assert process.stdin is not None
                async with asyncio.timeout(START_TIMEOUT_SECONDS):
                    process.stdin.write(text)
                    await process.stdin.drain()
                    process.stdin.close()
                    await _wait_for_api(process, folder / "api.sock")
                took = time.monotonic() - begun
            except (TimeoutError, ConnectionError):
                raise SideFailedError(f"the bare core did not answer within {START_TIMEOUT_SECONDS:g} s") from None
            yield BareCore(took, folder / "api.sock", process.pid, own)
        finally:
            await _end(process, signal.SIGKILL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def moved(config: Mapping[str, Any], api_socket: Path) -> dict[str, Any]:
    """A finished config that clashes with no running core: its API on ``api_socket``, inbounds on free ports."""
    inbounds = [
        {**inbound, "port": free_port()} if isinstance(inbound.get("port"), int) else inbound
        for inbound in config["inbounds"]
    ]
    return {**config, "api": {**config["api"], "listen": str(api_socket)}, "inbounds": inbounds}


async def _wait_for_api(process: asyncio.subprocess.Process, socket_path: Path) -> None:
    async with CoreApi(socket_path) as api:
        ready = asyncio.ensure_future(api.wait_ready(START_TIMEOUT_SECONDS))
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise SideFailedError(f"the bare core ended with exit code {process.returncode}")
            await ready
        finally:
            for task in (ready, ended):
                task.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)


async def _end(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """End a process and wait for it, by force where it takes too long."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
