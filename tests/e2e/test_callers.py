"""Callers without a right key, and callers that may not connect: a real node, REST and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import socket
import ssl
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from grpc import StatusCode, aio

from pgnode.testing.node import NodeProcess
from tests.e2e.conftest import WITH_GRPC
from tests.e2e.test_grpc import caller, maintenance_desk
from tests.support.outside_address import outside_address
from tests.support.polling import eventually
from tests.support.said import said

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT = 3
#: Seconds that a start or a restart may take on a machine that is busy.
LONG = 90.0


@pytest_asyncio.fixture(loop_scope="session")
async def node(short_dir: Path) -> AsyncIterator[NodeProcess]:
    """A node that was not started, on all addresses."""
    env = {**WITH_GRPC, "NODE_HOST": "0.0.0.0", "WRONG_KEY_LIMIT": str(LIMIT)}
    found = NodeProcess(env=env, state_dir=short_dir / "state")
    yield found
    await found.stop()


def _context(node: NodeProcess) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(node.ca_file))
    context.check_hostname = False
    return context


def _call(connection: http.client.HTTPSConnection, key: str) -> tuple[int, bool]:
    """The status, and whether the connection goes on."""
    connection.request("GET", "/info", headers={"x-api-key": key})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers.get("connection") != "close"


def _until_closed(node: NodeProcess, port: int) -> list[int]:
    """Call with wrong keys on one connection until the node closes it; the statuses."""
    connection = http.client.HTTPSConnection(node.host, port, context=_context(node), timeout=LONG)
    statuses: list[int] = []
    with contextlib.closing(connection):
        while len(statuses) < 100:
            status, goes_on = _call(connection, str(uuid.uuid4()))
            statuses.append(status)
            if not goes_on:
                # It is closed indeed: nothing more comes.
                assert connection.sock is None
                return statuses
    pytest.fail("it is never closed")


def _right_keys(node: NodeProcess) -> list[tuple[int, bool]]:
    connection = http.client.HTTPSConnection(node.host, node.port, context=_context(node), timeout=LONG)
    with contextlib.closing(connection):
        return [_call(connection, node.api_key) for _ in range(3 * LIMIT)]


async def _counted(node: NodeProcess, face: str) -> None:
    line = f'pgnode_api_wrong_key_limited_total{{face="{face}"}}'

    async def is_told() -> bool:
        async with maintenance_desk(node, node.api_key) as desk:
            text = (await desk.request("GET", "/metrics")).body.decode()
        return any(found.startswith(line) and not found.endswith(" 0.0") for found in text.splitlines())

    await eventually(is_told, f"{line} is told", LONG)


async def _grpc(node: NodeProcess, key: str) -> StatusCode:
    async with caller(node, key=key) as panel:
        try:
            await panel.call("GetBaseInfo")
        except aio.AioRpcError as error:
            return error.code()
    return StatusCode.OK


async def test_wrong_keys_cost_the_connection_and_right_ones_are_never_refused(node: NodeProcess) -> None:
    await node.start()
    statuses = await asyncio.to_thread(_until_closed, node, node.port)
    assert set(statuses) == {401}
    assert len(statuses) > LIMIT
    assert await asyncio.to_thread(_right_keys, node) == [(200, True)] * 3 * LIMIT
    await asyncio.to_thread(_until_closed, node, node.api_port)
    assert await asyncio.to_thread(_right_keys, node) == [(200, True)] * 3 * LIMIT
    for face in ("rest", "maintenance"):
        await _counted(node, face)
    # One line of each worker at most: it is said once a minute, and this takes less.
    assert "caller=127.0.0.1" in await said(node, "calls without the right API key: each costs the connection")

    # One that is ended while it is answered is an answer that does not come.
    wrong = {await _grpc(node, str(uuid.uuid4())) for _ in range(4 * LIMIT)}
    assert StatusCode.UNAUTHENTICATED in wrong
    assert wrong <= {StatusCode.UNAUTHENTICATED, StatusCode.UNAVAILABLE}
    assert [await _grpc(node, node.api_key) for _ in range(LIMIT)] == [StatusCode.OK] * LIMIT
    await _counted(node, "grpc")
    await said(node, "its caller comes again and again without the key")
    assert node.api_key not in node.output_text


def _answered(node: NodeProcess, host: str, port: int, seconds: float) -> bool:
    """Whether anything of HTTP comes back."""
    context = _context(node)
    asks = b"GET /info HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n"
    if port == node.grpc_port:
        context.set_alpn_protocols(["h2"])
        asks = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
    try:
        with (
            socket.create_connection((host, port), timeout=seconds) as connection,
            context.wrap_socket(connection) as tls,
        ):
            tls.sendall(asks)
            return bool(tls.recv(100))
    except OSError:
        return False


async def _all_answered(node: NodeProcess, host: str, seconds: float = LONG) -> list[bool]:
    ports = (node.port, node.api_port, node.grpc_port)
    return [await asyncio.to_thread(_answered, node, host, port, seconds) for port in ports]


async def test_others_than_those_who_are_named_find_nobody(node: NodeProcess) -> None:
    host = outside_address()
    if not host:
        pytest.skip("this machine has no address but loopback, and lets us make none")
    env_file = node.state_dir.parent / ".env"
    env_file.write_text("ALLOWED_CALLERS=203.0.113.0/24\n")
    await node.start()
    assert await _all_answered(node, "127.0.0.1") == [True] * 3, "the node itself, and commands"
    assert await _all_answered(node, host, 0.5) == [False] * 3

    async def reload(text: str, says: str) -> None:
        before = node.output_text.count(says)
        env_file.write_text(text)
        node.send_signal(signal.SIGHUP)
        await eventually(lambda: node.output_text.count(says) > before, says, LONG)

    await reload("ALLOWED_CALLERS=203.0.113.0/24,nobody\n", "'nobody' is none")
    assert await _all_answered(node, host, 0.5) == [False] * 3, "a wrong entry changes nothing"
    await reload(f"ALLOWED_CALLERS=203.0.113.0/24,{host}\n", "restarted in place")

    async def answered() -> bool:
        return await _all_answered(node, host, 5) == [True] * 3

    await eventually(answered, "who is named gets in", LONG)
    await reload("ALLOWED_CALLERS=203.0.113.0/24\n", "restarted in place")

    async def refused() -> bool:
        return await _all_answered(node, host, 0.5) == [False] * 3

    # The workers before may go on for a moment.
    await eventually(refused, "and is kept away again", LONG)
    assert await _all_answered(node, "127.0.0.1") == [True] * 3
    async with node.panel() as panel:
        await panel.info()
