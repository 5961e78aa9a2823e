"""The gRPC handlers on a real server of the library, against a service on fakes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from structlog.testing import capture_logs

from pgnode.api.auth import CURRENT, PREVIOUS, WRONG_KEY, ApiKeys
from pgnode.api.call_audit import CallAudit
from pgnode.api.grpc import health, reflection
from pgnode.api.grpc.grpc_compat import WriteError
from pgnode.api.grpc.handlers import SERVICE, GrpcHandlers
from pgnode.api.methods import METHODS, Method
from pgnode.bus.commands import Kind
from pgnode.errors import BY_CODE, NodeError, UsersRefusedError
from pgnode.metrics.meter import FaceMeter
from pgnode.wire import service_pb2 as pb
from tests.support.grpc_node import GrpcNode, code_of, key_metadata
from tests.support.polling import eventually
from tests.unit.api.fakes import KEY, Node, status

#: Seconds that a call may say nothing, here.
SILENT_SECONDS = 0.3
LIMIT = 100_000
CALLS, VIEWERS = 4, 3
WRONG = "00000000-0000-4000-8000-000000000000"


class Server:
    """The handlers on a unix socket."""

    def __init__(self, *, max_calls: int = CALLS, reflected: bool = False, open_paths: Sequence[str] = ()) -> None:
        self.node = Node()
        self.keys = ApiKeys(KEY)
        self.meter = FaceMeter(time.monotonic)
        self.serving = True
        self.folder = Path(tempfile.mkdtemp(prefix="pgn"))
        self.address = f"unix:{self.folder}/s"
        services = (SERVICE, health.SERVICE, *reflection.SERVICES)
        self.handlers = GrpcHandlers(
            self.node.service(),
            api_key=self.keys,
            body_timeout_seconds=SILENT_SECONDS,
            max_calls=max_calls,
            max_streams=VIEWERS,
            extra_handlers={
                **health.handlers(lambda: self.serving),
                **(reflection.handlers(services) if reflected else {}),
            },
            open_paths=open_paths,
            meter=self.meter,
            audit=CallAudit(ApiKeys.of(self.keys)),
        )
        self._server = aio.server(options=[("grpc.max_receive_message_length", LIMIT)])
        self._server.add_generic_rpc_handlers((self.handlers,))
        self._server.add_insecure_port(self.address)

    async def __aenter__(self) -> Server:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def caller(self) -> GrpcNode:
        return GrpcNode(self.address, KEY)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as running:
        yield running


@pytest_asyncio.fixture
async def caller(server: Server) -> AsyncIterator[GrpcNode]:
    async with server.caller() as one:
        yield one


@contextlib.contextmanager
def refused(code: StatusCode, text: str, error_code: str | None = None) -> Any:
    with pytest.raises(aio.AioRpcError) as caught:
        yield
    assert caught.value.code() is code, caught.value.details()
    assert text in (caught.value.details() or "")
    if error_code is not None:
        assert code_of(caught.value) == error_code


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


async def test_users_and_chunks_reach_the_supervisor(server: Server, caller: GrpcNode) -> None:
    users = [pb.User(email=f"u{number}") for number in range(5)]
    await caller.stream("SyncUser", users)
    await caller.stream("SyncUser", [])
    chunks = [pb.UsersChunk(users=users[:3], index=0), pb.UsersChunk(users=users[3:], index=1, last=True)]
    await caller.stream("SyncUsersChunked", chunks)
    calls = server.node.commands.calls
    assert [kind for kind, _, _ in calls] == [Kind.SYNC_USER] * 5 + [Kind.SYNC_CHUNKED]
    assert [pb.User.FromString(body).email for _, body, _ in calls[:5]] == [found.email for found in users]
    assert pb.Users.FromString(calls[5][1]) == pb.Users(users=users)


async def test_an_incomplete_set_changes_nothing(server: Server, caller: GrpcNode) -> None:
    for chunks, text in (
        ([pb.UsersChunk(index=0), pb.UsersChunk(index=2, last=True)], "missing chunk index 1"),
        ([pb.UsersChunk(index=0)], "missing final chunk indicator"),
        ([pb.UsersChunk(index=1), pb.UsersChunk(index=0, last=True)], "beyond the last chunk"),
    ):
        with refused(StatusCode.INVALID_ARGUMENT, text):
            await caller.stream("SyncUsersChunked", chunks)
    assert server.node.commands.calls == []


async def test_a_stream_that_breaks_off_leaves_what_came_applied(server: Server, caller: GrpcNode) -> None:
    sent = asyncio.Event()

    async def some() -> AsyncIterator[bytes]:
        for number in range(3):
            yield pb.User(email=f"u{number}").SerializeToString()
        sent.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(caller.stream("SyncUser", some()))
    await sent.wait()
    await eventually(lambda: len(server.node.commands.calls) == 3, "all that was sent is applied")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await caller.call("GetBaseInfo")).started


async def test_calls_beyond_the_limit_are_refused_and_probes_never(server: Server, caller: GrpcNode) -> None:
    held = [
        caller.channel.stream_unary(f"/{SERVICE}/SyncUser")(metadata=caller.metadata, timeout=20) for _ in range(CALLS)
    ]
    for call in held:
        await call.write(pb.User(email="u").SerializeToString())
    await eventually(lambda: len(server.node.commands.calls) == CALLS, "all are under way")
    with refused(StatusCode.RESOURCE_EXHAUSTED, f"too many calls: {CALLS} are under way", "RESOURCE_EXHAUSTED"):
        await caller.call("SyncUsers", pb.Users())
    assert (await caller.call("GetBaseInfo")).started
    for call in held:
        await call.done_writing()
        await call
    await caller.call("SyncUsers", pb.Users())


async def test_viewers_get_lines_as_they_come_and_begin_at_once(server: Server, caller: GrpcNode) -> None:
    viewer = caller.logs()
    async with asyncio.timeout(10):
        await viewer.initial_metadata()
        assert server.node.logs.watching == 1, "the log is open before the headers go out"
        await server.node.logs.queue.put(None)
        await server.node.logs.queue.put(("1-0", b"not \xff UTF-8"))
        assert pb.Log.FromString(await viewer.read()).detail == "not \ufffd UTF-8", "no heartbeat before it"
    assert server.node.logs.watching == 1
    viewer.cancel()
    await eventually(lambda: server.node.logs.watching == 0, "the viewer has gone")


async def test_viewers_beyond_the_limit_are_refused(server: Server, caller: GrpcNode) -> None:
    viewers = [caller.logs() for _ in range(VIEWERS)]
    for viewer in viewers:
        await viewer.initial_metadata()
    with refused(StatusCode.RESOURCE_EXHAUSTED, f"too many log viewers: {VIEWERS} are under way"):
        async for _ in caller.logs():
            raise AssertionError("a line")
    viewers[0].cancel()
    await eventually(lambda: server.node.logs.watching == VIEWERS - 1, "a slot is free again")
    await caller.logs().initial_metadata()


async def test_viewers_are_told_when_the_worker_ends(server: Server, caller: GrpcNode) -> None:
    viewer = caller.logs()
    await viewer.initial_metadata()
    await eventually(lambda: server.node.logs.watching == 1, "the viewer is there")
    server.handlers.end_viewers()
    with refused(StatusCode.UNAVAILABLE, "this worker is ending"):
        async for _ in viewer:
            raise AssertionError("a line")


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
