"""Workers of two hosts behind HAProxy are replaced, one host after the other, while a panel calls: no call fails."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from grpc.aio import AioRpcError

from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.connection import NoAnswerError
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_user, make_users
from tests.panel.client import Client, ClientError, Driver, Protocol, port_of
from tests.support.front import Front, missing, running
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually, pause
from tests.support.valkey import running_valkey

pytestmark = pytest.mark.needs_client

METRICS_KEY = "a-key-for-monitors-alone"
#: Where the supervisor has a worker of its own, and where the hosts "a" and "b" are.
OWN, *ADDRESSES = "127.0.0.10", "127.0.0.11", "127.0.0.12"
TAGS = ["VLESS", "Trojan"]
KINDS: tuple[Protocol, ...] = ("rest", "grpc")
#: Example -> how callers call. The panel's library ends calls over gRPC that are under way when its server says that it ends, so
#: something in front that reads HTTP has to keep that from it.
CALLERS: dict[str, list[Protocol]] = {
    "haproxy/pass-through.cfg": ["rest", "rest"],
    "haproxy/tls.cfg": ["rest", "grpc", "grpc"],
}
#: Calls that a caller makes between two replacements.
CALLS = 5


class WorkerHost:
    """``pgnode worker rest``, or ``grpc``, at an address."""

    def __init__(self, node: NodeProcess, address: str, folder: Path, kind: Protocol) -> None:
        self._node = node
        self._address = address
        self._folder = folder
        self._kind = kind
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        env = self._node.environment() | {
            "NODE_HOST": self._address,
            "STATE_DIR": str(self._folder / f"{self._address}-{self._kind}"),
            "SSL_CERT_FILE": str(self._node.ca_file),
            "SSL_KEY_FILE": str(self._node.ca_file.with_name("key.pem")),
        }
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pgnode", "worker", self._kind),
            env=env,
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    async def is_ready(self) -> bool:
        """Whether a worker there answers, asked at its own address."""
        if self._kind == "grpc":
            address = f"{self._address}:{port_of(self._node, 'grpc')}"
            async with GrpcNode(address, self._node.api_key, self._node.ca_file.read_bytes()) as caller:
                return bool((await caller.call("GetBaseInfo", timeout_seconds=5)).node_version)
        ca_file, key = self._node.ca_file, METRICS_KEY
        async with PanelClient(self._address, self._node.api_port, ca_file=ca_file, api_key=key) as monitor:
            return (await monitor.request("GET", "/readyz")).status == 200

    async def stop(self) -> None:
        """SIGTERM, as a service manager sends it."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(45):
                await self.process.wait()


#: The workers of each host, by its letter.
Hosts = dict[str, list[WorkerHost]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two_hosts() -> AsyncIterator[tuple[NodeProcess, Hosts]]:
    """A node, and two hosts of workers that meet it over Redis."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    async with running_valkey() as valkey, contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        env = {
            "REDIS_URL": valkey.url,
            "METRICS_KEY": METRICS_KEY,
            "CERT_NAMES": ",".join((OWN, *ADDRESSES)),
            "WEB_CONCURRENCY": "1",
            "CORE_CALL_TIMEOUT_SECONDS": "20",
        }
        node = NodeProcess(env=env)
        node.host = OWN
        await stack.enter_async_context(node)
        hosts = {
            name: [WorkerHost(node, address, folder, kind) for kind in KINDS]
            for name, address in zip("ab", ADDRESSES, strict=True)
        }
        for workers in (one for host in hosts.values() for one in host):
            await workers.start()
            stack.push_async_callback(workers.stop)
        yield node, hosts


@pytest.mark.parametrize("example", CALLERS)
async def test_no_call_fails_while_workers_are_replaced(
    driver: Driver, two_hosts: tuple[NodeProcess, Hosts], example: str
) -> None:
    node, hosts = two_hosts
    if lacking := missing(example):
        pytest.skip(f"{lacking} is not on this machine")
    ports = {"rest": node.port, "api": node.api_port, "grpc": node.grpc_port}
    async with running(example, ADDRESSES, ports, node_certificate=node.ca_file, key=METRICS_KEY) as front:
        for name in hosts:
            for backend in ("ready", "grpc-ready"):
                await front.wait_state(backend, name, "UP")
        certificate = front.certificate if "tls" in example else node.ca_file
        clients = [
            await Client.create(
                *(driver, node, protocol),
                address="127.0.0.1",
                port=front.ports[protocol],
                api_port=front.ports["api"],
                server_ca=certificate.read_text(),
            )
            for protocol in CALLERS[example]
        ]
        config = make_config([item for item in plain_inbounds() if item["tag"] in TAGS])
        await clients[0].start(config, make_users(20, TAGS))
        for client in clients[1:]:
            await client.start(config, make_users(20, TAGS))
        callers = [Caller(client, number) for number, client in enumerate(clients)]
        tasks = [asyncio.create_task(caller.run()) for caller in callers]
        try:
            for name, host in hosts.items():
                await called_on(callers)
                await replace(front, name, host)
            await called_on(callers)
        finally:
            for caller in callers:
                caller.done.set()
            await asyncio.gather(*tasks)
        assert [caller.failed for caller in callers] == [[]] * len(callers)
        for client in clients:
            await client.drop()


async def replace(front: Front, name: str, host: list[WorkerHost]) -> None:
    """As docs/scaling.md tells an operator to."""
    for backend in ("ready", "grpc-ready"):
        await front.ask(f"set server {backend}/host-{name} state drain")
    assert (await front.row("rest-ready", name))["status"].startswith("DRAIN")
    for workers in host:
        await workers.stop()
        await workers.start()
    for workers in host:
        errors = (OSError, NoAnswerError, AioRpcError)
        await eventually(workers.is_ready, f"workers of {name} are ready", errors=errors, rest=True)
    for backend in ("ready", "grpc-ready"):
        await front.ask(f"set server {backend}/host-{name} state ready")
    for backend in ("rest-ready", "grpc-ready"):
        await front.wait_state(backend, name, "UP")


class Caller:
    """A panel's client that asks and changes, one call after the other."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._number = number
        self.done = asyncio.Event()
        self.calls = 0
        self.failed: list[ClientError] = []

    async def run(self) -> None:
        while not self.done.is_set():
            user = make_user(f"caller{self._number}@demo", TAGS, key=str(self.calls))
            for call in (
                self._client.call("get_backend_stats"),
                self._client.call("sync_users_chunked", users=[user]),
                self._client.call("info"),
            ):
                try:
                    await call
                except ClientError as error:
                    self.failed.append(error)
            self.calls += 1
            await pause()


async def called_on(callers: list[Caller]) -> None:
    """Until each caller has called some times more."""
    before = [caller.calls for caller in callers]
    await eventually(
        lambda: all(caller.calls >= was + CALLS for caller, was in zip(callers, before, strict=True)), "callers call"
    )
