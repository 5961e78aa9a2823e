"""Time limits of connections, the form of Gunicorn's own errors, and what a worker that ends does with idle connections."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
import structlog
import uvloop

from pgnode.api.callers import AllowedCallers
from pgnode.api.rest.asgi import Headers
from pgnode.api.rest.context import connection_of
from pgnode.api.rest.fast_path import WholeAnswer
from pgnode.api.rest.whole_answers import FindAnswer
from pgnode.worker.asgi_worker import (
    ConnectionLimits,
    NodeConnection,
    NodeWorker,
    closed_as_not_allowed,
    worker_with,
)
from pgnode.worker.delivery import TcpDelivery
from tests.support.gunicorn_worker import lifespan, serving
from tests.support.polling import eventually, pause

#: Nothing runs into these by accident.
LONG = ConnectionLimits(
    headers_seconds=60, stall_seconds=60, delivery_seconds=60, handshake_seconds=0, silent_seconds=60
)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class App:
    """Answers with what the caller wants; notes how its answers fared."""

    def __init__(self) -> None:
        self.arrived: list[bool] = []
        #: The worker has ended.
        self.ended = False
        #: Answers to what waits.
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            self.ended = True
            return
        size = 50_000_000 if "large" in scope["path"] else 10
        connection = connection_of(scope)
        assert connection is not None
        if "endless" in scope["path"]:
            connection.answer_is_endless()
        watch = connection.watch_delivery() if "watched" in scope["path"] else None
        assert watch is None or isinstance(watch, TcpDelivery)
        headers = [(b"content-length", b"%d" % size)]
        if "waits" in scope["path"]:
            await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})
        if watch is not None:
            self.arrived.append(await watch.arrived(size))
            watch.close(size)


def on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test in the kind of event loop that workers have.

    That of Python 3.12.1 and 3.13.0 does not always say that a caller takes nothing (CVE-2024-12254).
    """

    @functools.wraps(test)
    def run() -> None:
        uvloop.run(test())

    return run


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


class WholeApp(App):
    """Answers /whole as a whole with the caller's address, and notes which port was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[int] = []

    def whole_answers(self, port: int) -> FindAnswer:
        self.ports.append(port)
        return self._find

    def _find(self, method: str, path: str, _headers: Headers, caller: str, body: bytes) -> WholeAnswer | None:
        answer = f"{method} {caller:>16} {body.decode()}".encode()
        return WholeAnswer(200, [(b"content-length", b"%d" % len(answer))], answer) if path == "/whole" else None


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends."""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read()
    return b""


async def answered(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(10)


GET = b"GET /%b HTTP/1.1\r\nHost: n\r\n\r\n"


class Nobody(AllowedCallers):
    """Whom the kernel let through although they may not connect."""

    def admit(self, host: str) -> bool:
        assert host == "127.0.0.1"
        return False


async def test_who_may_not_connect_gets_no_answer() -> None:
    nobody = Nobody([ipaddress.ip_network("192.0.2.1/32")])
    async with serving(worker_with(LONG, nobody), App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(GET % b"")
        assert await ended(reader) == b""
        assert worker.not_allowed == 1
        assert closed_as_not_allowed() in (0, 1), "the worker of this process, where there is one"


#: Settings of Gunicorn's with which a proxy names its callers.
PROXIED = {"proxy_protocol": "auto", "http_parser": "python"}


def named(host: str) -> bytes:
    return b"PROXY TCP4 %b 203.0.113.1 4711 443\r\n" % host.encode()


async def test_who_may_connect_holds_for_those_whom_a_proxy_names() -> None:
    allowed = AllowedCallers([ipaddress.ip_network("198.51.100.7/32")])
    async with serving(worker_with(LONG, allowed), App(), **PROXIED) as (worker, port):
        async with connected(port) as (reader, writer):
            writer.write(named("198.51.100.7") + GET % b"")
            await answered(reader)
        async with connected(port) as (reader, writer):
            writer.write(named("198.51.100.8") + GET % b"")
            assert await ended(reader) == b""
        assert worker.not_allowed == 1


async def test_who_asks_for_a_whole_answer_is_whom_a_proxy_names() -> None:
    app = WholeApp()
    async with serving(worker_with(LONG), app, **PROXIED) as (_, port):
        for said, caller in ((named("198.51.100.7"), "198.51.100.7"), (b"PROXY UNKNOWN\r\n", "127.0.0.1")):
            async with connected(port) as (reader, writer):
                writer.write(said)
                for _ in range(2):
                    writer.write(b"PUT /whole HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\n\r\none")
                    async with asyncio.timeout(10):
                        await reader.readuntil(b"\r\n\r\n")
                        assert await reader.readexactly(24) == f"PUT {caller:>16} one".encode()
                writer.write(GET % b"other")
                await answered(reader)
    assert app.ports == [port, port]


async def test_connections_are_counted_as_those_of_whom_a_proxy_names() -> None:
    """One caller has too many behind it, another one has not."""
    async with (
        serving(worker_with(LONG, most_per_address=2), App(), **PROXIED) as (worker, port),
        contextlib.AsyncExitStack() as stack,
    ):
        for host in ("198.51.100.7", "198.51.100.7", "198.51.100.8"):
            reader, writer = await stack.enter_async_context(connected(port))
            writer.write(named(host) + GET % b"")
            await answered(reader)
        with structlog.testing.capture_logs() as lines:
            reader, writer = await stack.enter_async_context(connected(port))
            writer.write(named("198.51.100.7") + GET % b"")
            assert await ended(reader) == b""
        assert [line["caller"] for line in lines] == ["198.51.100.7"]
        assert worker.cut_off == 1
        assert repr(worker.open_connections) == "OpenConnections(3 of 2 addresses, at most 2 each)"
    await eventually(lambda: "(0 of 0 addresses" in repr(worker.open_connections), "nobody is counted any more")


async def test_of_too_many_connections_of_one_address_those_end_on_which_nothing_was_asked() -> None:
    async with (
        serving(worker_with(LONG, most_per_address=3), App()) as (worker, port),
        contextlib.AsyncExitStack() as stack,
    ):
        asked = [await stack.enter_async_context(connected(port)) for _ in range(2)]
        for reader, writer in asked:
            writer.write(GET % b"")
            await answered(reader)
        with structlog.testing.capture_logs() as lines:
            silent = [await stack.enter_async_context(connected(port)) for _ in range(3)]
            assert [await ended(reader) for reader, _ in silent[:2]] == [b"", b""]
        (line,) = lines
        assert (line["caller"], line["most"], line["setting"]) == ("127.0.0.1", 3, "MAX_CONNECTIONS_PER_ADDRESS")
        for reader, writer in (*asked, silent[2]):
            writer.write(GET % b"")
            await answered(reader)
        # All have asked something now, so the next one has no place.
        assert await ended((await stack.enter_async_context(connected(port)))[0]) == b""
        assert worker.cut_off == 3
    await eventually(lambda: "(0 of 0 addresses" in repr(worker.open_connections), "nobody is counted any more")


@pytest.mark.parametrize("sent", [b"", b"GET / HT"], ids=["nothing", "a part"])
async def test_headers_that_do_not_come_end_the_connection(sent: bytes) -> None:
    limits = ConnectionLimits(headers_seconds=0.1, handshake_seconds=0)
    async with serving(worker_with(limits), App()) as (_, port), connected(port) as (reader, writer):
        writer.write(sent)
        assert await ended(reader) == b""


async def test_a_further_request_has_its_time_and_an_idle_connection_all_of_it() -> None:
    limits = ConnectionLimits(headers_seconds=0.2, handshake_seconds=0)
    async with serving(worker_with(limits), App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(GET % b"")
        await answered(reader)
        [connection] = worker.connections
        assert isinstance(connection, NodeConnection)
        assert connection._header_timer is None, "nothing is waited for while nobody asks"
        writer.write(b"GET / HT")
        await eventually(lambda: connection._header_timer is not None, "the rest is waited for")
        writer.write(b"TP/1.1\r\nHost: n\r\n\r\n")
        await answered(reader)
        writer.write(b"GET / HT")
        assert await ended(reader) == b""


@on_uvloop
async def test_a_caller_that_takes_nothing_is_closed_unless_it_may() -> None:
    limits = ConnectionLimits(headers_seconds=60, stall_seconds=0.1, handshake_seconds=0)
    async with (
        serving(worker_with(limits), App()) as (worker, port),
        connected(port) as (silent, silent_writer),
        connected(port) as (patient, patient_writer),
    ):
        silent_writer.write(GET % b"large")
        patient_writer.write(GET % b"large/endless")
        await eventually(lambda: len(worker.connections) == 1, "one of them is closed")
        assert len(await ended(silent)) < 50_000_000
        async with asyncio.timeout(20):
            await patient.readuntil(b"\r\n\r\n")
            assert await patient.readexactly(50_000_000)


@on_uvloop
async def test_a_slow_caller_that_takes_something_is_left_alone() -> None:
    limits = ConnectionLimits(headers_seconds=60, stall_seconds=60, handshake_seconds=0)
    async with serving(worker_with(limits), App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(GET % b"large")
        await eventually(lambda: worker.connections, "the connection is there")
        [connection] = worker.connections
        assert isinstance(connection, NodeConnection)
        await eventually(lambda: connection._stall_timer is not None, "nothing is taken")
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(50_000_000)
        await eventually(lambda: connection._stall_timer is None, "all was taken")


async def test_an_answer_is_watched_until_it_arrived() -> None:
    app = App()
    async with serving(worker_with(LONG), app) as (_, port), connected(port) as (reader, writer):
        writer.write(GET % b"watched")
        await answered(reader)
        await eventually(lambda: app.arrived == [True], "its fate is known")


async def test_an_answer_that_takes_too_long_is_cut_off() -> None:
    app = App()
    limits = ConnectionLimits(headers_seconds=60, stall_seconds=60, delivery_seconds=0.2, handshake_seconds=0)
    async with serving(worker_with(limits), app) as (_, port), connected(port) as (reader, writer):
        writer.write(GET % b"large/watched")
        await eventually(lambda: app.arrived == [False], "its fate is known")
        assert len(await ended(reader)) < 50_000_000


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"GARBAGE\r\n\r\n", "INVALID_ARGUMENT"), (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n", "INVALID_ARGUMENT")],
)
async def test_what_is_no_request_is_answered_in_the_form_of_all_errors(data: bytes, code: str) -> None:
    async with serving(worker_with(LONG), App()) as (_, port), connected(port) as (reader, writer):
        writer.write(data)
        head, _, body = (await ended(reader)).partition(b"\r\n\r\n")
        found = json.loads(body)
        assert set(found) == {"error", "code"}
        assert found["error"].startswith("malformed request: ")
        assert found["code"] == code
        assert b"content-type: application/json" in head


async def test_a_worker_that_ends_closes_idle_connections_and_no_other() -> None:
    limits = ConnectionLimits(headers_seconds=60, handshake_seconds=0.1)
    async with (
        serving(worker_with(limits), App()) as (worker, port),
        connected(port) as (idle, idle_writer),
        connected(port) as (new, new_writer),
    ):
        idle_writer.write(GET % b"")
        await answered(idle)
        await eventually(lambda: len(worker.connections) == 2, "both are there")
        worker.handle_exit_signal()
        assert await ended(idle) == b""
        # One that has just come gets its answer.
        new_writer.write(GET % b"")
        await answered(new)


async def test_a_worker_that_ends_waits_longer_for_calls_than_for_those_who_have_asked_nothing() -> None:
    app = App()
    limits = replace(LONG, silent_seconds=0)
    async with (
        serving(worker_with(limits), app, graceful_timeout=60) as (worker, port),
        connected(port) as (reader, writer),
        connected(port) as (idle, idle_writer),
        connected(port),
    ):
        idle_writer.write(GET % b"")
        await answered(idle)
        writer.write(GET % b"waits")
        await eventually(lambda: any(one.has_call for one in worker.connections), "it is asked")
        seen = worker.tmp.last_update()
        worker.handle_exit_signal()
        assert await ended(idle) == b""
        await eventually(lambda: worker.tmp.last_update() > seen, "it gives signs of life, and waits")
        assert sorted(one.has_call for one in worker.connections) == [False, True]
        app.go_on.set()
        await answered(reader)
        assert await ended(reader) == b""
        await eventually(lambda: app.ended, "it has ended")
        assert [one.was_asked for one in worker.connections] == [False]


async def test_a_worker_that_ends_gives_a_call_up_that_takes_too_long() -> None:
    limits = replace(LONG, silent_seconds=0)
    app = App()
    async with serving(worker_with(limits), app, graceful_timeout=0) as (worker, port), connected(port) as (_, writer):
        writer.write(GET % b"waits")
        await eventually(lambda: any(one.has_call for one in worker.connections), "it is asked")
        worker.handle_exit_signal()
        await eventually(lambda: app.ended, "it has ended")
        assert [one.has_call for one in worker.connections] == [True]


async def test_a_worker_that_ends_does_not_wait_for_what_has_no_end() -> None:
    async with serving(worker_with(LONG), App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(GET % b"endless/waits")
        await eventually(lambda: any(one.has_call for one in worker.connections), "it is asked")
        worker.handle_exit_signal()
        assert await ended(reader) == b""


async def test_a_worker_that_ends_waits_for_handshakes_that_are_under_way() -> None:
    """They may take long on a busy machine, and whoever was accepted here is answered by no other worker."""
    limits = ConnectionLimits(headers_seconds=60, handshake_seconds=60)
    async with (
        serving(worker_with(limits), App()) as (worker, port),
        connected(port) as (idle, writer),
    ):
        writer.write(GET % b"")
        await answered(idle)
        assert not worker.arriving
        # As the event loop makes it when it has accepted a connection.
        accepted = NodeConnection(worker)
        [server] = worker.servers
        worker.handle_exit_signal()
        await eventually(lambda: not server.is_serving(), "nobody is accepted any more")
        await pause()
        assert worker.connections, "it waits"
        worker.arriving.remove(accepted)
        assert await ended(idle) == b""


async def test_a_worker_that_ends_answers_what_comes_at_the_last_moment() -> None:
    """A connection waits for its first request, or for a further one; both come in the turn in which idle ones are closed."""
    callers: list[Stream] = []

    class Worker(worker_with(LONG)):  # type: ignore[misc]
        async def _all_have_arrived(self) -> None:
            for connection in self.connections:
                assert connection._awaiting_request
            # One is read and not yet taken up, one is not even read.
            first, further = sorted(self.connections, key=lambda one: one.was_asked)
            assert (first.was_asked, further.was_asked) == (False, True)
            first.data_received(GET % b"first")
            os.write(callers[1][1].get_extra_info("socket").fileno(), GET % b"further")

    async with serving(Worker, App()) as (worker, port), connected(port) as new, connected(port) as kept:
        callers += [new, kept]
        kept[1].write(GET % b"")
        await answered(kept[0])
        await eventually(
            lambda: len(worker.connections) == 2 and all(one._awaiting_request for one in worker.connections),
            "both wait for a request",
        )
        worker.handle_exit_signal()
        for reader, _ in callers:
            await answered(reader)


def test_every_worker_class_has_its_own_limits() -> None:
    one = worker_with(LONG)
    assert (one.limits, NodeWorker.limits) == (LONG, ConnectionLimits())
    assert one.connection_class is NodeConnection
