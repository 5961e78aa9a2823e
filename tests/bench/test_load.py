"""The load generator against real TLS servers: it counts what was answered, and tells what was not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bench.load import LoadError, Requests, Side, compare, run_load
from pgnode.testing.ports import free_port
from tests.support.certificates import make_certificate
from tests.support.polling import pause

Answer = Callable[[bytes], Awaitable[bytes]]
BIG = bytes(400_000)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(tmp_path_factory.mktemp("tls"), ["localhost"], ["127.0.0.1"]))
    return context


@contextlib.asynccontextmanager
async def server(tls: ssl.SSLContext, answer: Answer) -> AsyncIterator[int]:
    """A server that reads requests of 8 digits of length and content, and sends what ``answer`` makes of the content."""
    writers = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError, EOFError):
            while True:
                size = int(await reader.readexactly(8))
                reply = await answer(await reader.readexactly(size))
                # One that answers at once would have both sides compute for as long as a test measures.
                await pause()
                if not reply:
                    break
                # In pieces with awkward borders: in the head, between head and body, in the body.
                for piece in (reply[:7], reply[7:45], reply[45:]):
                    writer.write(piece)
                    await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for writer in writers:
            writer.transport.abort()
        await listener.wait_closed()


def reply(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def sized(content: bytes) -> bytes:
    return b"%08d" % len(content) + content


async def test_counts_answers_and_sends_all_requests_in_turn(tls: ssl.SSLContext) -> None:
    seen: list[bytes] = []

    async def answer(content: bytes) -> bytes:
        seen.append(content)
        return reply(b"hello")

    async with server(tls, answer) as port:
        with Requests([sized(b"a"), sized(b"bb"), sized(b"ccc")]) as requests:
            side = Side(port, requests)
            first = await run_load(side, connections=3, seconds=1.5)
            sent = len(seen)
            # Ends with nothing under way, and the next round goes on where this one ended.
            assert first.sent == sent
            assert requests.next == sent % 3
            await run_load(side, connections=1, seconds=1.5)
    assert (first.refused, first.broken) == (0, 0)
    assert 0 < first.answers <= sent
    assert 0 < first.p50_ms <= first.p99_ms < 10_000
    cycle = [b"a", b"bb", b"ccc"]
    assert seen[sent : sent + 4] == [cycle[(sent + more) % 3] for more in range(4)]
    assert abs(seen.count(b"a") - seen.count(b"ccc")) <= 1


async def test_large_answers_and_empty_ones(tls: ssl.SSLContext) -> None:
    async def answer(content: bytes) -> bytes:
        return reply(BIG if content == b"big" else b"")

    async with server(tls, answer) as port:
        with Requests([sized(b"big"), sized(b"none")]) as requests:
            found = await run_load(Side(port, requests), connections=4, seconds=3)
    assert found.answers > 4
    assert (found.refused, found.broken) == (0, 0)


async def test_large_requests(tls: ssl.SSLContext) -> None:
    sizes = []

    async def answer(content: bytes) -> bytes:
        sizes.append(len(content))
        return reply(b"")

    async with server(tls, answer) as port:
        with Requests([sized(bytes(5_000_000))]) as requests:
            # Some of these have to go both ways while others compute.
            found = await run_load(Side(port, requests), connections=2, seconds=4)
    assert found.answers >= 1
    assert (found.refused, found.broken) == (0, 0)
    assert set(sizes) == {5_000_000}


async def test_refusals_are_told_and_not_counted(tls: ssl.SSLContext) -> None:
    count = 0

    async def answer(_content: bytes) -> bytes:
        nonlocal count
        count += 1
        return reply(b"not now", "503 Service Unavailable") if count % 2 else reply(b"")

    async with server(tls, answer) as port:
        with Requests([sized(b"x")]) as requests:
            found = await run_load(Side(port, requests), connections=2, seconds=1.5)
    assert found.refused > 0
    assert found.first_refusal == "503 not now"
    assert found.answers <= count - found.refused


async def test_broken_connections_are_replaced_and_told(tls: ssl.SSLContext) -> None:
    count = 0

    async def answer(_content: bytes) -> bytes:
        nonlocal count
        count += 1
        return b"" if count % 10 == 0 else reply(b"")

    async with server(tls, answer) as port:
        with Requests([sized(b"x")]) as requests:
            found = await run_load(Side(port, requests), connections=2, seconds=1.5)
    assert found.broken == count // 10
    assert found.answers > 0


async def test_a_server_that_never_answers_or_is_not_there(tls: ssl.SSLContext) -> None:
    async def answer(_content: bytes) -> bytes:
        return b""

    with Requests([sized(b"x")]) as requests:
        async with server(tls, answer) as port:
            with pytest.raises(LoadError, match="gave no answer"):
                await run_load(Side(port, requests), connections=1, seconds=1.5)
        with pytest.raises(LoadError, match="refused"):
            await run_load(Side(free_port(), requests), connections=1, seconds=1.5)


async def test_compare_measures_every_side(tls: ssl.SSLContext) -> None:
    order: list[bytes] = []

    async def answer(content: bytes) -> bytes:
        if not order or order[-1] != content:
            order.append(content)
        return reply(b"")

    async with server(tls, answer) as port:
        with Requests([sized(b"a")]) as a, Requests([sized(b"b")]) as b:
            sides = {"a": Side(port, a), "b": Side(port, b)}
            found = await compare(sides, connections=1, seconds=1.5, rounds=2)
    assert order == [b"a", b"b", b"a"]
    assert found["a"].per_second > 0
    assert found["b"].faults == ""
