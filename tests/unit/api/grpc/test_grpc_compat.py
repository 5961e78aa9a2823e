"""What the node relies on in the gRPC library, with a real server and real callers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import pytest
from grpc import aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from pgnode.api.grpc import grpc_compat
from pgnode.api.grpc.grpc_compat import (
    Context,
    RpcHandler,
    WriteError,
    abort,
    certificate_that_changes,
    discard,
    reflection_handler,
    start,
    tell_nothing_of_what_callers_do,
    tell_nothing_twice,
    when_call_ends,
)
from pgnode.xray.transport import frames as h2
from tests.fuzz import http2
from tests.support.certificates import make_certificate
from tests.support.hostile_http2 import EMPTY_MESSAGE, call_block
from tests.support.polling import eventually, pause


class Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, found: dict[str, RpcHandler]) -> None:
        self._found = found

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler | None:
        return self._found.get(handler_call_details.method)


@contextlib.asynccontextmanager
async def serving(handlers: dict[str, RpcHandler]) -> AsyncIterator[Any]:
    """A caller's channel to a server with these handlers."""
    server = aio.server()
    server.add_generic_rpc_handlers((Handlers(handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


Handle = Callable[[Any, Context], Awaitable[Any]]


def unary(handle: Handle) -> dict[str, RpcHandler]:
    return {"/t/m": grpc.stream_unary_rpc_method_handler(handle)}


def stream(handle: Handle) -> dict[str, RpcHandler]:
    return {"/t/m": grpc.stream_stream_rpc_method_handler(handle)}


def test_versions_are_checked() -> None:
    with mock.patch("pgnode.dependencies.check") as asked:
        grpc_compat.check()
    asked.assert_called_once_with("grpcio")


def test_the_members_are_there() -> None:
    assert {"read", "write", "abort", "time_remaining", "send_initial_metadata"} <= set(dir(aio.ServicerContext))
    assert list(inspect.signature(aio.ServicerContext.abort).parameters) == [
        "self",
        "code",
        "details",
        "trailing_metadata",
    ]
    assert issubclass(WriteError, Exception)
    assert issubclass(aio.AbortError, Exception)
    assert list(inspect.signature(grpc.dynamic_ssl_server_credentials).parameters) == [
        "initial_certificate_configuration",
        "certificate_configuration_fetcher",
        "require_client_authentication",
    ]
    assert inspect.isasyncgenfunction(reflection.aio.ReflectionServicer.ServerReflectionInfo)  # type: ignore[attr-defined]


@pytest.mark.parametrize("handlers", [unary, stream])
async def test_a_handler_reads_bytes_and_then_something_else(
    handlers: Callable[[Handle], dict[str, RpcHandler]],
) -> None:
    seen: list[Any] = []

    async def handle(_messages: Any, context: Context) -> bytes:
        while isinstance(message := await context.read(), bytes):
            seen.append(message)
        seen.append(message)
        if handlers is stream:
            await context.write(b"answer")
        return b"answer"

    async with serving(handlers(handle)) as channel:
        # One message or several, and an answer from either kind of handler: the same on the wire.
        assert await channel.unary_unary("/t/m")(b"") == b"answer"
        assert await channel.stream_unary("/t/m")(iter([b"1", b"2"])) == b"answer"
    assert [message for message in seen if isinstance(message, bytes)] == [b"", b"1", b"2"]
    assert [type(message) for message in seen if not isinstance(message, bytes)] == [type(aio.EOF)] * 2  # type: ignore[attr-defined]


async def test_nothing_is_read_before_the_handler_reads() -> None:
    go_on = asyncio.Event()

    async def handle(_messages: Any, context: Context) -> bytes:
        await go_on.wait()
        total = 0
        while isinstance(message := await context.read(), bytes):
            total += len(message)
        return b"%d" % total

    async with serving(unary(handle)) as channel:
        sent = 0

        async def messages() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(200):
                yield bytes(100_000)
                sent += 1

        call = asyncio.ensure_future(channel.stream_unary("/t/m")(messages()))
        before = -1
        while sent != before:
            before = sent
            await pause()
        assert sent < 100, "the caller is held up by what nobody reads"
        go_on.set()
        assert await call == b"20000000"


async def test_a_call_that_sends_nothing_can_be_given_up() -> None:
    async def handle(_messages: Any, context: Context) -> bytes:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await context.read()
        await abort(context, "DEADLINE_EXCEEDED", "silent")

    async with serving(unary(handle)) as channel:
        call = channel.stream_unary("/t/m")()
        with pytest.raises(aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_error_has_its_status_its_text_and_its_metadata() -> None:
    async def handle(_messages: Any, context: Context) -> bytes:
        await abort(context, "UNAVAILABLE", "not now", (("error-code", "X"), ("more", "y")))

    for handlers in (unary(handle), stream(handle)):
        async with serving(handlers) as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary("/t/m")(b"")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "not now"
        trailing: Any = caught.value.trailing_metadata()
        assert [tuple(pair) for pair in trailing] == [("error-code", "X"), ("more", "y")]


async def test_the_call_of_a_caller_that_stays_ends_well() -> None:
    ends: list[bool] = []

    async def handle(_messages: Any, context: Context) -> bytes:
        await context.read()
        when_call_ends(ends.append)
        await context.write(b"x")
        return b""

    async with serving(stream(handle)) as channel:
        assert await channel.unary_unary("/t/m")(b"") == b"x"
        await eventually(lambda: ends == [True], "the call is over")


async def test_a_call_that_is_aborted_was_not_left_by_its_caller() -> None:
    ends: list[bool] = []

    async def handle(_messages: Any, context: Context) -> bytes:
        when_call_ends(ends.append)
        await abort(context, "INTERNAL", "no")

    async with serving(stream(handle)) as channel:
        with pytest.raises(aio.AioRpcError):
            await channel.unary_unary("/t/m")(b"")
        await eventually(lambda: ends == [True], "the call is over")


async def test_a_caller_that_goes_cancels_the_task_of_its_call() -> None:
    ends: list[bool] = []
    begun = asyncio.Event()

    async def handle(_messages: Any, context: Context) -> bytes:
        await context.read()
        when_call_ends(ends.append)
        begun.set()
        await asyncio.Event().wait()
        return b""

    async with serving(stream(handle)) as channel:
        call = channel.unary_unary("/t/m")(b"")
        asking = asyncio.ensure_future(call)
        await begun.wait()
        call.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: ends == [False], "the call is over")


async def test_a_write_to_a_caller_that_has_gone_fails_or_is_cancelled() -> None:
    outcome: list[str] = []
    begun, gone = asyncio.Event(), asyncio.Event()

    async def handle(_messages: Any, context: Context) -> bytes:
        await context.read()
        begun.set()
        try:
            while True:
                await context.write(bytes(1_000_000))
        except WriteError:
            outcome.append("failed")
            raise
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        finally:
            gone.set()

    async with serving(stream(handle)) as channel:
        call = channel.unary_stream("/t/m")(b"")
        await call.read()
        await begun.wait()
        call.cancel()
        async with asyncio.timeout(10):
            await gone.wait()
    assert outcome in (["failed"], ["cancelled"])


@pytest.mark.parametrize("gone", [True, False], ids=["who has gone", "a header that is no text"])
async def test_what_the_library_says_of_callers_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gone: bool
) -> None:
    """That one has gone it tells only where it did not know it yet, so several callers go."""
    logger = logging.getLogger("grpc._cython.cygrpc")
    monkeypatch.setattr(logger, "filters", [])

    async def handle(_messages: Any, context: Context) -> None:
        context.invocation_metadata()
        await context.read()
        with contextlib.suppress(WriteError):
            await context.write(b"to a caller who takes nothing")

    server = aio.server()
    server.add_generic_rpc_handlers((Handlers({"/t/m": grpc.stream_stream_rpc_method_handler(handle)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    block = call_block(None, "/t/m") + (b"" if gone else b"\0\x01x\x02\xff\xfe")

    async def told() -> logging.LogRecord | None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            h2.PREFACE
            + h2.settings_frame({h2.SETTINGS_INITIAL_WINDOW_SIZE: 0})
            + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block)
            + h2.frame(h2.DATA, h2.END_STREAM, 1, EMPTY_MESSAGE)
        )
        kind = -1
        while kind != h2.HEADERS:
            high, low, kind, _, _ = h2.HEAD.unpack(await reader.readexactly(h2.HEAD.size))
            await reader.readexactly(high << 16 | low)
        writer.transport.abort()
        wanted = WriteError if gone else UnicodeDecodeError
        found = (record for record in caplog.records if record.name == logger.name and record.exc_info)
        return next((record for record in found if isinstance(record.exc_info[1], wanted)), None)  # type: ignore[index]

    try:
        record = await eventually(told, "the library tells of it")
    finally:
        await server.stop(0)
    tell_nothing_of_what_callers_do()
    assert not logger.filter(record)
    other = logger.makeRecord(logger.name, logging.ERROR, "", 0, "other", (), (ValueError, ValueError(), None))
    assert logger.filter(other)
    assert logger.filter(logger.makeRecord(logger.name, logging.ERROR, "", 0, "without an error", (), None))


async def served(port: int) -> bytes:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


async def test_a_certificate_is_asked_for_at_every_handshake_and_taken_when_it_changed(tmp_path: Path) -> None:
    pairs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cert_file, key_file = make_certificate(tmp_path / name, [name], ["127.0.0.1"])
        pairs.append((cert_file.read_bytes(), key_file.read_bytes()))
    asked, changed = 0, False

    def has_changed() -> bool:
        nonlocal asked
        asked += 1
        return changed

    current = pairs[0]
    server = aio.server()
    port = server.add_secure_port("127.0.0.1:0", certificate_that_changes(lambda: current, has_changed))
    await server.start()
    try:
        first = await served(port)
        assert first == ssl.PEM_cert_to_DER_cert(pairs[0][0].decode())
        current = pairs[1]
        assert await served(port) == first, "as before"
        changed = True
        assert await served(port) == ssl.PEM_cert_to_DER_cert(pairs[1][0].decode())
        assert asked >= 3
    finally:
        await server.stop(0)


async def test_a_server_that_ends_over_a_path_that_is_no_text_says_so_and_makes_room_for_another() -> None:
    first = aio.server(options=[("grpc.so_reuseport", 1)])
    port = first.add_insecure_port("127.0.0.1:0")
    ended = await start(first)
    await call_once(port, b"/t/m")
    assert not ended.is_set()
    writer = await send_call(port, b"/t/\xff")
    async with asyncio.timeout(30):
        await ended.wait()
    writer.close()
    await discard(first)
    second = aio.server(options=[("grpc.so_reuseport", 1)])
    assert second.add_insecure_port(f"127.0.0.1:{port}") == port
    ended = await start(second)
    await call_once(port, b"/t/m")
    assert not ended.is_set()
    await second.stop(0)
    async with asyncio.timeout(30):
        await ended.wait()


def test_only_what_was_told_is_kept_quiet() -> None:
    loop = mock.Mock()
    tell_nothing_twice(loop)
    handle = loop.set_exception_handler.call_args.args[0]
    handle(loop, {"exception": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")})
    loop.default_exception_handler.assert_not_called()
    handle(loop, {"message": "other", "exception": ValueError()})
    loop.default_exception_handler.assert_called_once()


async def send_call(port: int, path: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(http2.opened(http2.frames_to(path)))
    await writer.drain()
    return writer


async def call_once(port: int, path: bytes) -> None:
    """A call that is answered: no such method."""
    channel: Any = aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    async with channel:
        with pytest.raises(aio.AioRpcError, match="UNIMPLEMENTED"):
            await channel.unary_unary(path.decode())(b"", timeout=30)


async def test_reflection_tells_of_the_services() -> None:
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    async with serving({path: reflection_handler(["service.NodeService"])}) as channel:
        call = channel.stream_stream(path)(
            iter([reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()])
        )
        answer = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
        assert [service.name for service in answer.list_services_response.service] == ["service.NodeService"]
