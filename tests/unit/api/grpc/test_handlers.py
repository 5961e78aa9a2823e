"""The gRPC handlers on a real server of the library, against a service on fakes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from structlog.testing import capture_logs

from pgnode.api.auth import CURRENT, PREVIOUS, WRONG_KEY
from pgnode.api.grpc import health, reflection
from pgnode.api.grpc.grpc_compat import WriteError
from pgnode.api.grpc.handlers import SERVICE, GrpcHandlers
from pgnode.api.methods import METHODS, Method
from pgnode.errors import BY_CODE, NodeError, UsersRefusedError
from pgnode.wire import service_pb2 as pb
from tests.support.grpc_node import GrpcNode, key_metadata
from tests.support.polling import eventually
from tests.unit.api.fakes import KEY, status
from tests.unit.api.grpc.stage import CALLS, LIMIT, SILENT_SECONDS, VIEWERS, WRONG, Server, refused


async def test_the_previous_key_is_counted_and_ends(server: Server) -> None:
    new = str(uuid.UUID(int=5))
    server.keys.replace(new, KEY)
    async with server.caller() as old, GrpcNode(server.address, new) as other:
        await old.call("GetBaseInfo")
        await other.call("GetBaseInfo")
        assert server.meter.key_uses == {PREVIOUS: 1, CURRENT: 1}
        server.keys.replace(new, None)
        with refused(StatusCode.UNAUTHENTICATED, WRONG_KEY):
            await old.call("GetBaseInfo")
        await other.call("GetBaseInfo")


def unary(rows: Sequence[Method] = METHODS) -> list[Method]:
    return [row for row in rows if not row.streaming and not row.client_streaming]


@pytest.mark.parametrize("row", unary(), ids=lambda row: row.grpc_name)
async def test_every_method_takes_the_bytes_to_its_handler_and_back(row: Method) -> None:
    class Service:
        def __getattr__(self, name: str) -> Any:
            return lambda body: name.encode() + b" " + body

        def called(self) -> None:
            pass

    handlers = GrpcHandlers(
        Service(),  # type: ignore[arg-type]
        api_key=KEY,
        body_timeout_seconds=5,
        max_calls=1,
        max_streams=1,
    )

    written: list[bytes] = []

    class Context:
        async def read(self) -> bytes:
            return b"body"

        async def write(self, message: bytes) -> None:
            written.append(message)

        def time_remaining(self) -> None:
            return None

        def peer(self) -> str:
            return "ipv4:192.0.2.1:4711"

    class Details:
        method = f"/{SERVICE}/{row.grpc_name}"
        invocation_metadata = key_metadata(KEY)

    handler: Any = handlers.service(Details())  # type: ignore[arg-type]
    if row.tracked:
        await handler.stream_stream(None, Context())
    else:
        written.append(await handler.stream_unary(None, Context()))
    assert written == [row.handler.encode() + b" body"]


@pytest.mark.parametrize("form", ["x-api-key", "bearer"])
@pytest.mark.parametrize("key", [KEY, KEY.upper(), f"{{{KEY}}}"])
async def test_the_key_in_either_form(caller: GrpcNode, form: Any, key: str) -> None:
    assert (await caller.call("GetBaseInfo", metadata=key_metadata(key, form))).started


@pytest.mark.parametrize("metadata", [(), key_metadata(WRONG), key_metadata("x"), key_metadata(WRONG, "bearer")])
@pytest.mark.parametrize("name", ["GetBaseInfo", "SyncUser", "GetLogs", "NoSuchMethod"])
async def test_without_the_key_nothing_is_told_and_nothing_is_read(
    server: Server, caller: GrpcNode, name: str, metadata: Any
) -> None:
    call = caller.channel.stream_stream(f"/{SERVICE}/{name}")(metadata=metadata, timeout=10)
    # Nothing is sent at all: the answer does not wait for it.
    with refused(StatusCode.UNAUTHENTICATED, "the API key is missing or wrong"):
        await call.read()
    assert list(await call.initial_metadata()) == []
    assert list(await call.trailing_metadata()) == []
    assert server.node.commands.calls == []


async def test_an_unknown_method(caller: GrpcNode) -> None:
    with refused(StatusCode.UNIMPLEMENTED, f"no such method: /{SERVICE}/Reboot", "UNIMPLEMENTED"):
        await caller.call("Reboot")


@pytest.mark.parametrize("name", ["Start", "GetStats", "SyncUsers", "TestRoute"])
async def test_a_malformed_message(server: Server, caller: GrpcNode, name: str) -> None:
    with refused(StatusCode.INVALID_ARGUMENT, "malformed", "INVALID_ARGUMENT"):
        await caller.call(name, b"\xff\xff\xff")
    assert server.node.commands.calls == []


async def test_no_message_at_all(caller: GrpcNode) -> None:
    with refused(StatusCode.INVALID_ARGUMENT, "no message: send one StatRequest"):
        await caller.stream("GetStats", [])


@pytest.mark.parametrize("name", ["SyncUser", "SyncUsersChunked", "GetStats", "GetBackendStats"])
async def test_a_call_that_is_opened_and_sends_nothing_ends(caller: GrpcNode, name: str) -> None:
    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    with refused(StatusCode.DEADLINE_EXCEEDED, f"no message came within {SILENT_SECONDS:g} s", "DEADLINE_EXCEEDED"):
        await caller.stream(name, silent(), timeout_seconds=None)


async def test_a_message_over_the_limit(server: Server, caller: GrpcNode) -> None:
    with refused(StatusCode.RESOURCE_EXHAUSTED, "larger than max"):
        await caller.call("SyncUsers", b"\0" * (LIMIT + 1))
    assert server.node.commands.calls == []
    assert (await caller.call("GetBaseInfo")).started, "the connection goes on"


async def test_a_deadline_that_is_over(server: Server, caller: GrpcNode) -> None:
    with refused(StatusCode.DEADLINE_EXCEEDED, ""):
        await caller.call("SyncUsers", pb.Users(), timeout_seconds=-1)
    assert server.node.commands.calls == []


async def test_the_callers_deadline_is_the_commands(server: Server, caller: GrpcNode) -> None:
    await caller.call("SyncUsers", pb.Users(), timeout_seconds=7)
    await caller.call("SyncUsers", pb.Users(), timeout_seconds=None)
    (_, _, short), (_, _, own) = server.node.commands.calls
    assert 5 < short < 8
    assert own == 30.0


@pytest.mark.parametrize("error", list(BY_CODE.values()), ids=list(BY_CODE))
async def test_every_error_has_its_status_text_and_code(
    server: Server, caller: GrpcNode, error: type[NodeError]
) -> None:
    server.node.commands.error = error("the cause: öäü")
    with refused(StatusCode[error.grpc_status], "the cause: öäü", error.code):
        await caller.call("SyncUsers", pb.Users())


async def test_an_unexpected_fault_is_told_without_its_insides(server: Server, caller: GrpcNode) -> None:
    server.node.commands.error = ZeroDivisionError("secret")
    with refused(StatusCode.INTERNAL, "internal error (ZeroDivisionError): see the node's log", "INTERNAL"):
        await caller.call("SyncUsers", pb.Users())


async def test_a_caller_that_leaves_before_its_answer_is_written_is_no_error() -> None:
    class Context:
        def __init__(self) -> None:
            self.messages: list[Any] = [b"", aio.EOF]  # type: ignore[attr-defined]
            self.writes = 0

        def time_remaining(self) -> None:
            return None

        def peer(self) -> str:
            return "ipv4:192.0.2.1:4711"

        async def read(self) -> Any:
            return self.messages.pop(0)

        async def write(self, _answer: bytes) -> None:
            self.writes += 1
            raise WriteError("the caller has gone")

    class Service:
        def __getattr__(self, _name: str) -> Any:
            return lambda *_: b"answer"

    service: Any = Service()
    handlers = GrpcHandlers(service, api_key=KEY, body_timeout_seconds=1, max_calls=CALLS, max_streams=VIEWERS)
    details: Any = SimpleNamespace(method=f"/{SERVICE}/GetStats", invocation_metadata=key_metadata(KEY))
    handler: Any = handlers.service(details)
    context = Context()
    with capture_logs() as logged:
        await handler.stream_stream(None, context)
    assert (context.writes, logged) == (1, [])


async def test_a_long_text_is_shortened_and_arrives(server: Server, caller: GrpcNode) -> None:
    server.node.commands.error = UsersRefusedError("failed to update users: " + "ä" * 100_000)
    with refused(StatusCode.INTERNAL, "failed to update users: ää", "USER_REJECTED"):
        await caller.call("SyncUsers", pb.Users())


@pytest.mark.parametrize(
    ("state", "text", "code"),
    [
        ("idle", "backend not initialized", "BACKEND_NOT_INITIALIZED"),
        ("starting", "core is not started yet", "CORE_NOT_STARTED"),
        ("recovering", "core is not started yet", "CORE_NOT_STARTED"),
    ],
)
async def test_the_states_that_the_panel_asks_for(
    server: Server, caller: GrpcNode, state: str, text: str, code: str
) -> None:
    server.node.reads.status = status(state)
    with refused(StatusCode.UNAVAILABLE, text, code):
        await caller.call("GetBackendStats")


async def test_health_tells_whether_the_worker_serves(server: Server, caller: GrpcNode) -> None:
    assert await caller.health() == health_pb2.HealthCheckResponse.SERVING
    assert await caller.health(SERVICE) == health_pb2.HealthCheckResponse.SERVING
    watch = caller.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", metadata=caller.metadata)
    async with asyncio.timeout(10):
        assert await watch.read() == b"\x08\x01"
        server.serving = False
        assert await watch.read() == b"\x08\x02"
    assert await caller.health() == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


async def test_watchers_of_the_health_are_few(caller: GrpcNode) -> None:
    method = caller.channel.unary_stream("/grpc.health.v1.Health/Watch")
    watchers = [method(b"", metadata=caller.metadata) for _ in range(health.WATCHERS_MAX)]
    for watcher in watchers:
        await watcher.read()
    with refused(StatusCode.RESOURCE_EXHAUSTED, "too many health watchers"):
        async for _ in method(b"", metadata=caller.metadata):
            raise AssertionError("a state")
    for watcher in watchers:
        watcher.cancel()


async def _services(caller: GrpcNode, metadata: Any) -> list[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    call = caller.channel.stream_stream(f"/{reflection.SERVICES[0]}/ServerReflectionInfo")(
        iter([request]), metadata=metadata, timeout=10
    )
    return [
        service.name
        async for answer in call
        for service in reflection_pb2.ServerReflectionResponse.FromString(answer).list_services_response.service
    ]


async def test_reflection_only_where_it_is_wanted_and_with_the_key(caller: GrpcNode) -> None:
    with refused(StatusCode.UNIMPLEMENTED, "no such method"):
        await _services(caller, caller.metadata)
    async with Server(reflected=True) as server, server.caller() as other:
        found = await _services(other, other.metadata)
        assert {SERVICE, health.SERVICE} <= set(found)
        with refused(StatusCode.UNAUTHENTICATED, "the API key"):
            await _services(other, ())


async def test_calls_are_counted_with_what_they_were_answered(server: Server, caller: GrpcNode) -> None:
    await caller.call("GetBaseInfo")
    for name in ("Nothing", "GetStats"):
        with pytest.raises(aio.AioRpcError):
            await caller.call(name, b"\xff")
    with pytest.raises(aio.AioRpcError):
        await caller.call("GetBaseInfo", metadata=key_metadata(WRONG))
    await caller.health()
    assert server.meter.calls == {
        "GetBaseInfo": {"OK": 1},
        "other": {"UNIMPLEMENTED": 1},
        "GetStats": {"INVALID_ARGUMENT": 1},
    }
    assert (server.meter.unauthenticated, server.meter.in_flight) == (1, 0)
    request = pb.StatRequest(type=pb.StatType.UsersStat, reset=True)
    await caller.call("GetStats", request)
    groups = {group: sum(buckets[:-1]) for group, buckets in server.meter.times.items()}
    assert groups == {"read": 2, "take": 1}


async def test_calls_that_change_something_are_in_the_audit_trail(server: Server, caller: GrpcNode) -> None:
    with capture_logs() as lines:
        await caller.call("Stop")
        await caller.call("GetBaseInfo")
        with pytest.raises(aio.AioRpcError):
            await caller.call("Stop", metadata=key_metadata(WRONG))
        await eventually(lambda: any("audit" in line for line in lines), "it is told")
    [line] = [line for line in lines if line.get("audit") == "call"]
    # The caller has no address here.
    assert (line["method"], line["caller"], line["answer"]) == ("Stop", "", "OK")
    assert len(line["key"]) == 8


async def test_health_without_the_key_where_that_is_wanted() -> None:
    async with Server(open_paths=health.PATHS) as server, GrpcNode(server.address, WRONG) as stranger:
        assert await stranger.health() == health_pb2.HealthCheckResponse.SERVING
        with refused(StatusCode.UNAUTHENTICATED, ""):
            await stranger.call("GetBaseInfo")
    async with Server() as server, GrpcNode(server.address, WRONG) as stranger:
        with refused(StatusCode.UNAUTHENTICATED, ""):
            await stranger.health()
