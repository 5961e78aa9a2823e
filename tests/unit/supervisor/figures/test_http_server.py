"""Plain HTTP on METRICS_PORT: GET alone, within limits, whoever calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from structlog.testing import capture_logs

from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.figures.http_server import REQUEST_BYTES_MAX, Answer, FiguresServer, Page
from pgnode.testing.ports import free_port
from tests.support.polling import eventually


class Pages:
    """A page that answers, and others that do not."""

    def __init__(self) -> None:
        self.accepts: list[str] = []

    async def metrics(self, accept: str) -> Answer:
        self.accepts.append(accept)
        return Answer(200, "text/x", b"up 1\n")

    async def hangs(self, _accept: str) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    async def fails(self, _accept: str) -> Answer:
        raise RuntimeError("odd")

    async def large(self, _accept: str) -> Answer:
        return Answer(200, "text/x", bytes(50 * 1024 * 1024))

    @property
    def by_path(self) -> dict[str, Page]:
        return {"/metrics": self.metrics, "/hangs": self.hangs, "/fails": self.fails, "/large": self.large}


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
async def server(pages: Pages) -> AsyncIterator[FiguresServer]:
    server = FiguresServer("127.0.0.1", free_port(), pages.by_path, deadline_seconds=0.2, connections_max=3)
    task = asyncio.create_task(server.run())
    await eventually(lambda: server.port, "it listens")
    yield server
    await end_tasks([task])


async def ask(server: FiguresServer, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_page(server: FiguresServer, pages: Pages) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        for path in ("/metrics", "/metrics?x=1"):
            answer = await client.get(path, headers={"accept": "text/x"})
            assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "up 1\n", "text/x")
    assert pages.accepts == [" text/x", " text/x"]
    assert repr(server).endswith("0 connections)")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"GET /other HTTP/1.1", b"404"),
        (b"GET /metrics", b"400"),
        (b"\xff\xfe", b"400"),
        (b"GET /fails HTTP/1.0", b"500"),
        (b"GET /hangs HTTP/1.1", b"504"),
    ],
)
async def test_other_requests_get_a_clear_error(server: FiguresServer, request_line: bytes, status: bytes) -> None:
    with capture_logs():
        answer = await ask(server, request_line + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b'{"error": "' in answer
    assert (b"Allow: GET" in answer) == (status == b"405")


async def test_a_request_that_is_too_large_or_never_ends(server: FiguresServer) -> None:
    assert (await ask(server, b"GET /metrics HTTP/1.1\r\nx: " + bytes(2 * REQUEST_BYTES_MAX))).startswith(
        b"HTTP/1.1 431"
    )
    assert await ask(server, b"GET /metrics HTTP/1.1\r\n") == b"", "closed after a while"


async def test_connections_are_few(server: FiguresServer) -> None:
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    try:
        await eventually(lambda: repr(server).endswith("3 connections)"), "all are there")
        assert await ask(server, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
    finally:
        for _, writer in held:
            writer.close()
    await eventually(lambda: repr(server).endswith(" 0 connections)"), "they have gone")


async def test_who_takes_nothing_is_let_go(server: FiguresServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        await eventually(lambda: repr(server).endswith(" 0 connections)"), "it is let go")


async def test_a_port_in_use_is_said_once_and_tried_again(pages: Pages) -> None:
    with socket.socket() as other, capture_logs() as logged:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = FiguresServer("127.0.0.1", port, pages.by_path, retry_seconds=0.001)
        task = asyncio.create_task(server.run())
        await eventually(lambda: logged, "it is said")
        other.close()
        await eventually(lambda: server.port == port, "it listens")
        await end_tasks([task])
    assert [line["log_level"] for line in logged] == ["error", "info"]
    assert server.port == 0
