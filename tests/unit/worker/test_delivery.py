"""Whether an answer arrived, on real TCP connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pgnode.worker.delivery import TcpDelivery
from tests.support.certificates import make_certificate
from tests.support.polling import next_turn

#: More than both kernels and the transport's own buffer take while nobody reads.
LARGE = bytes(20_000_000)

Ends = tuple[asyncio.WriteTransport, asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connection(context: ssl.SSLContext | None = None) -> AsyncIterator[Ends]:
    """A server's transport, and the caller's end of it."""
    made: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda _, writer: made.set_result(writer), "127.0.0.1", 0, ssl=context)
    async with server:
        client = None
        if context is not None:
            client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, limit=1024)
        served = await made
        try:
            yield served.transport, reader, writer
        finally:
            writer.transport.abort()
            served.transport.abort()


def tls(tmp_path: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(tmp_path, ["localhost"], ["127.0.0.1"]))
    context.maximum_version = version
    return context


Context = Callable[[Path], ssl.SSLContext | None]


@pytest.mark.parametrize(
    "context",
    [lambda _: None, lambda path: tls(path, ssl.TLSVersion.TLSv1_2), lambda path: tls(path, ssl.TLSVersion.TLSv1_3)],
    ids=["plain", "TLS 1.2", "TLS 1.3"],
)
@pytest.mark.parametrize("size", [5, 5_000_000])
async def test_what_was_read_has_arrived(tmp_path: Path, context: Context, size: int) -> None:
    async with connection(context(tmp_path)) as (transport, reader, _):
        watch = TcpDelivery(transport, limit_seconds=20)
        assert repr(watch) == "TcpDelivery(watching)"
        transport.write(bytes(size))
        reading = asyncio.create_task(reader.readexactly(size))
        assert await watch.arrived(size)
        assert watch.close(size)
        assert len(await reading) == size
        assert repr(watch) == "TcpDelivery(ended)"
        assert not watch.close(size), "it is looked at once"
        # The connection goes on as usual.
        transport.write(b"next")
        assert await reader.readexactly(4) == b"next"


async def test_what_nobody_reads_is_cut_off_in_time() -> None:
    async with connection() as (transport, reader, _):
        watch = TcpDelivery(transport, limit_seconds=0.1)
        transport.write(LARGE)
        assert not await watch.arrived(len(LARGE))
        with contextlib.suppress(ConnectionResetError):
            assert len(await reader.read()) < len(LARGE)


async def test_a_caller_that_goes_has_not_received_it() -> None:
    async with connection() as (transport, _, writer):
        watch = TcpDelivery(transport, limit_seconds=20)
        transport.write(LARGE)
        writer.transport.abort()
        assert not await watch.arrived(len(LARGE))


async def test_less_than_the_answer_is_not_the_answer() -> None:
    """The kernel's queue is empty, but the rest waits in the event loop, or was never written."""
    async with connection() as (transport, reader, _):
        watch = TcpDelivery(transport, limit_seconds=0.2)
        transport.write(b"half")
        assert await reader.readexactly(4) == b"half"
        assert not await watch.arrived(8)


async def test_a_caller_that_closes_after_its_answer_has_received_it() -> None:
    async with connection() as (transport, reader, writer):
        watch = TcpDelivery(transport, limit_seconds=20)
        transport.write(b"answer")
        assert await reader.readexactly(6) == b"answer"
        writer.close()
        await writer.wait_closed()
        assert await watch.arrived(6)
        watch.close(6)


async def test_an_answer_that_is_given_up_does_not_arrive_later() -> None:
    async with connection() as (transport, reader, _):
        watch = TcpDelivery(transport, limit_seconds=20)
        transport.write(LARGE)
        assert not watch.close(len(LARGE))
        assert transport.is_closing()
        with contextlib.suppress(ConnectionResetError):
            assert len(await reader.read()) < len(LARGE)


async def test_a_connection_that_has_gone_already() -> None:
    async with connection() as (transport, _, __):
        transport.abort()
        await next_turn()
        watch = TcpDelivery(transport, limit_seconds=20)
        assert not await watch.arrived(1)


async def test_a_process_that_dies_sends_nothing_more() -> None:
    async with connection() as (transport, _, __):
        watch = TcpDelivery(transport, limit_seconds=20)
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == b"\x01\0\0\0\0\0\0\0"
        transport.write(b"x")
        assert await watch.arrived(1)
        watch.close(1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == bytes(8)
