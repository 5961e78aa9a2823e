"""The examples of deploy/haproxy and deploy/nginx: the panel's own client through each of them, and what they make of a drain."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.connection import Connection
from pgnode.testing.node import NodeProcess
from pgnode.testing.users import make_user, make_users
from tests.panel.client import Client, Driver, Protocol
from tests.support.front import Front, missing, running
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually
from tests.support.said import said

pytestmark = pytest.mark.needs_client

METRICS_KEY = "a-key-for-monitors-alone"
#: Where the workers of the hosts "a" and "b" listen.
ADDRESSES = ("127.0.0.11", "127.0.0.12")
#: Another caller of a proxy.
STRANGER = "127.0.0.9"
TAGS = ["VLESS", "Trojan"]
#: Names of inbounds that there are not make a body large, and cost the core nothing.
LARGE_TAGS = [f"no-inbound-{number}" for number in range(320)]

NAMED = "proxy-protocol"
#: For some pings of a caller that sends ten a second.
SILENT_SECONDS = 0.7

#: Example -> whether TLS ends there.
EXAMPLES = {
    "haproxy/pass-through.cfg": False,
    "haproxy/tls.cfg": True,
    "haproxy/proxy-protocol.cfg": True,
    "nginx/pass-through.conf": False,
    "nginx/tls.conf": True,
    "nginx/proxy-protocol.conf": True,
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeProcess]:
    """A node whose workers are the host "a"."""
    conf = tmp_path_factory.mktemp("front") / "gunicorn_conf.py"
    conf.write_text('proxy_protocol = "auto"\nproxy_allow_ips = "127.0.0.1"\n')
    env = {
        "CERT_NAMES": ",".join(ADDRESSES),
        "METRICS_KEY": METRICS_KEY,
        "GUNICORN_CONF": str(conf),
        "WEB_CONCURRENCY": "1",
        "CORE_CALL_TIMEOUT_SECONDS": "20",
        # Connections of many tests come from one address, and all are the proxy's.
        "WRONG_KEY_LIMIT": "0",
    }
    made = NodeProcess(env=env)
    made.host = ADDRESSES[0]
    async with made as running_node:
        yield running_node


@contextlib.asynccontextmanager
async def front_of(example: str, node: NodeProcess) -> AsyncIterator[Front]:
    """The proxy of an example before the node; skipped by name where there is no such program."""
    if lacking := missing(example):
        pytest.skip(f"{lacking} is not on this machine")
    ports = {"rest": node.port, "api": node.api_port, "grpc": node.grpc_port}
    async with running(example, ADDRESSES, ports, node_certificate=node.ca_file, key=METRICS_KEY) as front:
        yield front


async def client_of(driver: Driver, node: NodeProcess, front: Front, example: str, protocol: Protocol) -> Client:
    """The panel's client, which knows nothing but the proxy."""
    certificate = front.certificate if EXAMPLES[example] else node.ca_file
    ports = {"port": front.ports[protocol], "api_port": front.ports["api"]}
    return await Client.create(driver, node, protocol, address="127.0.0.1", server_ca=certificate.read_text(), **ports)


def cases() -> list[tuple[str, Protocol]]:
    protocols: tuple[Protocol, Protocol] = ("rest", "grpc")
    return [
        (example, protocol)
        for example in EXAMPLES
        for protocol in protocols
        if protocol == "rest" or NAMED not in example
    ]


@pytest.mark.parametrize(("example", "protocol"), cases())
async def test_a_panel_through_a_proxy(node: NodeProcess, driver: Driver, example: str, protocol: Protocol) -> None:
    """Starts, reads, a log that is open all the time, and a body of more than 8 MB."""
    config = make_config([item for item in plain_inbounds() if item["tag"] in TAGS])
    async with front_of(example, node) as front:
        panel = await client_of(driver, node, front, example, protocol)
        try:
            assert (await panel.start(config, make_users(20, TAGS))).started
            async with panel.logs() as viewer:
                assert (await panel.call("info")).started
                large = [make_user(f"large{number}@demo", [*TAGS, *LARGE_TAGS]) for number in range(1_600)]
                assert sum(user.ByteSize() for user in large) > 8_000_000
                await panel.call("sync_users", users=large)
                await panel.queue([make_user("late@demo", TAGS)])
                await eventually(panel.settled, "what was queued was sent")
                assert (await panel.call("get_backend_stats")).num_goroutine > 0
                await panel.call("sync_users", users=make_users(3, TAGS))
                async with node.panel() as beside:
                    await beside.stop()
                await viewer.wait_for("stop requested")
        finally:
            await panel.drop()


@pytest.mark.parametrize("example", [name for name in EXAMPLES if NAMED not in name])
async def test_a_stream_of_grpc_with_pings_that_is_silent(node: NodeProcess, example: str) -> None:
    """The caller pings ten times a second; nothing else happens on the stream until there is something to say."""
    async with front_of(example, node) as front:
        certificate = front.certificate if EXAMPLES[example] else node.ca_file
        options = [
            ("grpc.keepalive_time_ms", 100),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        address = f"127.0.0.1:{front.ports['grpc']}"
        async with GrpcNode(address, node.api_key, certificate.read_bytes(), options=options) as caller:
            await caller.call("GetBaseInfo")
            stream = caller.logs()
            seen: list[bytes] = []

            async def read() -> None:
                async for message in stream:
                    seen.append(message)

            reading = asyncio.create_task(read())
            silent_until = asyncio.get_running_loop().time() + SILENT_SECONDS
            while asyncio.get_running_loop().time() < silent_until:
                await caller.call("GetBaseInfo")
            async with node.panel() as beside:
                await beside.stop()
            await eventually(lambda: any(b"stop requested" in message for message in seen), "the line comes")
            assert not reading.done()
            stream.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading


@pytest.mark.parametrize("example", [name for name in EXAMPLES if NAMED in name])
async def test_the_node_knows_who_calls_a_proxy(node: NodeProcess, example: str) -> None:
    async with front_of(example, node) as front:
        context = ssl.create_default_context(cafile=str(front.certificate))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", front.ports["rest"], ssl=context, local_addr=(STRANGER, 0)
        )
        connection = Connection(reader, writer)
        try:
            async with node.panel() as panel:
                head = panel.head("PUT", "/stop", {"Content-Length": "0"})
            assert (await connection.exchange(head, [], 30)).status == 200
        finally:
            await connection.close()
    await said(node, "called", f"caller={STRANGER} ")


async def drain(node: NodeProcess, *arguments: str) -> None:
    """``pgnode drain``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgnode", "drain", "--state-dir", str(node.state_dir), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode in (0, 4), said.decode()


async def test_haproxy_sees_a_drain_and_its_end_and_the_panel_does_not(node: NodeProcess, driver: Driver) -> None:
    """While no host is ready calls go to those that are alive."""
    example = "haproxy/pass-through.cfg"
    config = make_config([item for item in plain_inbounds() if item["tag"] in TAGS])
    async with front_of(example, node) as front:
        for backend in ("ready", "alive", "grpc-ready", "grpc-alive"):
            await front.wait_state(backend, "a", "UP")
            await front.wait_state(backend, "b", "DOWN")
        clients = [await client_of(driver, node, front, example, protocol) for protocol in ("rest", "grpc")]
        for client in clients:
            await client.start(config, make_users(3, TAGS))
        await drain(node, "--hold")
        for backend in ("ready", "grpc-ready", "rest-ready"):
            await front.wait_state(backend, "a", "DOWN")
        for client in clients:
            await client.drop()
        fresh = [await client_of(driver, node, front, example, protocol) for protocol in ("rest", "grpc")]
        for client in fresh:
            await client.start(config, make_users(2, TAGS))
        for backend in ("rest-alive", "grpc-alive"):
            assert int((await front.row(backend, "a"))["stot"]) > 0
        await drain(node, "--cancel")
        for backend in ("ready", "grpc-ready", "rest-ready"):
            await front.wait_state(backend, "a", "UP")
        for client in fresh:
            await client.drop()
