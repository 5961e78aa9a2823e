"""A gRPC worker in this process, on a real bus: it serves, says that it is alive, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from grpc import aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # the stubs leave it out
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from pgnode.api.grpc import grpc_compat
from pgnode.api.grpc.handlers import GrpcHandlers
from pgnode.bus.commands import Kind
from pgnode.bus.heartbeat import BEAT, LEAVING, OTHERS_SERVE
from pgnode.os_support.aio import end_tasks
from pgnode.settings import Settings, load
from pgnode.testing.ports import free_port
from pgnode.wire import service_pb2 as pb
from pgnode.worker import grpc_worker
from tests.fuzz import http2
from tests.support.certificates import make_certificate
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually, pause
from tests.support.stub_supervisor import StubSupervisor
from tests.support.valkey import TestValkey

#: The library, as it was built.
LIBRARY = Path(cygrpc.__file__)

KEY = "123e4567-e89b-42d3-a456-426614174000"
SERVING = int(health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture
async def supervisor(valkey: TestValkey) -> AsyncIterator[StubSupervisor]:
    stub = StubSupervisor(valkey.url)
    await stub.start()
    await stub.publish_all()
    yield stub
    await stub.close()


@pytest.fixture
def settings(valkey: TestValkey, tmp_path: Path) -> Settings:
    cert_file, key_file = make_certificate(tmp_path, ["localhost"], ["127.0.0.1"])
    return load(
        redis_url=valkey.url,
        state_dir=tmp_path / "state",
        node_host="127.0.0.1",
        grpc_port=free_port(),
        api_key=KEY,
        ssl_cert_file=cert_file,
        ssl_key_file=key_file,
        grpc_reflection=True,
    )


@pytest.fixture(autouse=True)
def handlers_of_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Worker:
    """A worker that serves, and the supervisor's end of its channel."""

    def __init__(self, settings: Settings, **seconds: float) -> None:
        self._settings = settings
        self.near, far = socket.socketpair()
        self.near.setblocking(False)
        self.task = asyncio.create_task(grpc_worker.serve(settings, far.detach(), **{"grace_seconds": 0.5, **seconds}))
        self.beats = b""

    async def heard(self, what: bytes) -> None:
        """Return when the worker has sent this."""
        async with asyncio.timeout(20):
            while what not in self.beats:
                self.beats += await asyncio.get_running_loop().sock_recv(self.near, 64)

    def caller(self, options: Sequence[tuple[str, int]] = ()) -> GrpcNode:
        certificate = self._settings.cert_file.read_bytes()
        return GrpcNode(grpc_worker.address(self._settings), KEY, certificate, options=options)

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await self.task


@contextlib.asynccontextmanager
async def working(settings: Settings, **seconds: float) -> AsyncIterator[Worker]:
    worker = Worker(settings, **seconds)
    try:
        await worker.heard(BEAT)
        yield worker
    finally:
        await end_tasks([worker.task])
        worker.near.close()


async def read_to_end(viewer: Any) -> None:
    while isinstance(await viewer.read(), bytes):
        pass


async def test_it_serves_and_ends_when_its_channel_is_closed(supervisor: StubSupervisor, settings: Settings) -> None:
    async with working(settings) as worker, worker.caller() as caller:
        assert (await caller.call("GetBackendStats")).num_goroutine == 42
        assert await caller.health() == SERVING
        viewer = caller.logs()
        await viewer.initial_metadata()
        worker.near.close()
        await worker.ended()
        with pytest.raises(aio.AioRpcError, match="this worker is ending"):
            await read_to_end(viewer)


async def test_a_signal_makes_it_ask_for_a_replacement_and_go_on(
    supervisor: StubSupervisor, settings: Settings
) -> None:
    async with working(settings) as worker, worker.caller() as caller:
        os.kill(os.getpid(), signal.SIGTERM)
        await worker.heard(LEAVING)
        assert (await caller.call("GetSystemStats")).mem_total == 1000, (
            "calls are taken until the replacement has the port"
        )
        assert not worker.task.done()
        worker.near.close()
        await worker.ended()


@contextlib.asynccontextmanager
async def connection(settings: Settings) -> AsyncIterator[socket.socket]:
    """One of a caller who has said nothing yet."""
    with socket.socket() as connected:
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, (settings.node_host, settings.grpc_listen[1]))
        yield connected


async def handshake(settings: Settings, connected: socket.socket) -> str | None:
    """Return the protocol that was agreed on."""
    context = ssl.create_default_context(cafile=str(settings.cert_file))
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(sock=connected, ssl=context, server_hostname="localhost")
    agreed: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()
    return agreed


async def test_beside_others_it_waits_for_callers_who_have_just_connected(
    supervisor: StubSupervisor, settings: Settings
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        working(settings, handshake_seconds=60) as worker,
        worker.caller() as known,
        connection(settings) as before,
    ):
        assert await known.health() == SERVING
        worker.near.send(OTHERS_SERVE)
        worker.near.close()

        async def kept_away() -> bool:
            with socket.socket() as late:
                late.setblocking(False)
                try:
                    async with asyncio.timeout(0.3):
                        await loop.sock_connect(late, (settings.node_host, settings.grpc_listen[1]))
                except TimeoutError:
                    return True
                return False

        await eventually(kept_away, "nobody new connects")
        assert await handshake(settings, before) == "h2"
        assert await known.health() == SERVING
        assert not worker.task.done()


@pytest.mark.parametrize("others_serve", [True, False])
async def test_nobody_is_waited_for_without_end(
    supervisor: StubSupervisor, settings: Settings, others_serve: bool
) -> None:
    seconds = {"handshake_seconds": 0.1 if others_serve else 60.0}
    async with working(settings, **seconds) as worker, connection(settings) as silent:
        if others_serve:
            worker.near.send(OTHERS_SERVE)
        worker.near.close()
        await worker.ended()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(silent, 64) == b""


async def test_beside_others_it_tells_callers_of_its_end_when_no_call_runs(
    supervisor: StubSupervisor, settings: Settings
) -> None:
    async with working(settings, handshake_seconds=0.0, leave_seconds=60.0) as worker, worker.caller() as caller:
        call = caller.channel.stream_unary("/service.NodeService/SyncUser")(metadata=caller.metadata, timeout=50)
        await call.write(pb.User(email="alice").SerializeToString())
        await eventually(lambda: supervisor.of_kind(Kind.SYNC_USER), "it is under way")
        viewer = caller.logs()
        await viewer.initial_metadata()
        worker.near.send(OTHERS_SERVE)
        worker.near.close()
        with pytest.raises(aio.AioRpcError, match="this worker is ending"):
            await read_to_end(viewer)
        # Nobody else listens here, so this is the connection on which that call runs.
        for _ in range(20):
            assert await caller.health() == SERVING
            await pause()
        assert not worker.task.done()
        await call.done_writing()
        await call
        await worker.ended()


async def test_a_path_that_is_no_text_ends_no_more_than_the_calls_of_the_moment(
    supervisor: StubSupervisor, settings: Settings
) -> None:
    context = ssl.create_default_context(cafile=str(settings.cert_file))
    context.set_alpn_protocols(["h2"])
    async with working(settings) as worker:
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", settings.grpc_listen[1], ssl=context)
            writer.write(http2.opened(http2.frames_to(b"/service.NodeService/\xff")))
            await writer.drain()

            async def answers() -> bool:
                async with worker.caller() as caller:
                    return bool((await caller.call("GetBackendStats")).num_goroutine == 42)

            await eventually(answers, "calls are taken", errors=(aio.AioRpcError,))
            writer.transport.abort()
        assert not worker.task.done()
        worker.near.close()
        await worker.ended()


async def test_without_a_replacement_it_goes_on_and_asks_again(supervisor: StubSupervisor, settings: Settings) -> None:
    async with working(settings) as worker, worker.caller() as caller:
        os.kill(os.getpid(), signal.SIGINT)
        await worker.heard(3 * LEAVING)
        assert (await caller.call("GetSystemStats")).mem_total == 1000
        assert not worker.task.done()
        worker.near.close()
        await worker.ended()


async def test_it_is_not_serving_while_nothing_is_known(valkey: TestValkey, settings: Settings) -> None:
    async with working(settings) as worker, worker.caller() as caller:
        assert await caller.health() != SERVING
        with pytest.raises(aio.AioRpcError, match="state is not known yet"):
            await caller.call("GetBackendStats")
        stub = StubSupervisor(valkey.url)
        await stub.publish_all()

        async def serving() -> bool:
            return await caller.health() == SERVING

        await eventually(serving, "it serves")
        await stub.close()


async def test_changes_of_a_stream_reach_the_supervisor(supervisor: StubSupervisor, settings: Settings) -> None:
    async with working(settings) as worker, worker.caller() as caller:
        await caller.stream("SyncUser", [pb.User(email=f"u{number}", inbounds=["x"]) for number in range(20)])
        assert [pb.User.FromString(command.body).email for command in supervisor.commands] == [
            f"u{n}" for n in range(20)
        ]


def test_the_options_of_the_server(settings: Settings) -> None:
    options = dict(grpc_worker.server_options(settings))
    assert options["grpc.max_receive_message_length"] == settings.max_body_bytes
    assert options["grpc.max_concurrent_streams"] == 64, "one connection cannot make the others wait for long"
    assert options["grpc.server.max_pending_requests"] >= 8 * settings.grpc_max_calls
    assert grpc_worker.address(settings.model_copy(update={"node_host": "::1"})).startswith("[::1]:")


@pytest.mark.parametrize(("arguments", "number"), [(["worker", "7"], 7), (["worker"], None)])
def test_a_process_becomes_a_worker(arguments: list[str], number: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.delenv("GRPC_ENABLE_FORK_SUPPORT", raising=False)
    with (
        mock.patch.object(grpc_worker, "set_up_logging"),
        mock.patch.object(grpc_worker, "keep_large_blocks_apart"),
        mock.patch.object(grpc_worker, "allow_many_files"),
        mock.patch.object(grpc_worker, "load_handed_over", return_value="settings"),
        mock.patch.object(grpc_worker, "serve", new=mock.Mock()) as serve,
        mock.patch("uvloop.run") as run,
    ):
        grpc_worker.main()
    serve.assert_called_once_with("settings", number)
    run.assert_called_once_with(serve.return_value)
    assert os.environ["GRPC_ENABLE_FORK_SUPPORT"] == "0"


def test_the_library_knows_every_option() -> None:
    """It ignores names that it does not know, without a word."""
    library = LIBRARY.read_bytes()
    for name, _ in grpc_worker.server_options(load(api_key=KEY)):
        # Some names are put together of this and a part that others share.
        assert name.encode() in library, name


async def test_the_librarys_threads_are_behind_the_one_that_answers(
    supervisor: StubSupervisor, settings: Settings
) -> None:
    main = os.getpriority(os.PRIO_PROCESS, os.getpid())

    def priorities() -> set[int]:
        found = set()
        for thread in Path("/proc/self/task").iterdir():
            # Threads end at any time.
            with contextlib.suppress(OSError):
                if (thread / "comm").read_text(encoding="utf-8").strip() == grpc_compat.CORE_THREADS:
                    found.add(os.getpriority(os.PRIO_PROCESS, int(thread.name)))
        return found

    async with working(settings) as worker, worker.caller() as caller:
        assert (await caller.call("GetBackendStats")).num_goroutine == 42
        await eventually(lambda: priorities() == {min(main + grpc_worker.CORE_THREADS_BEHIND, 19)}, "all are behind")


async def test_a_caller_that_pings_often_keeps_its_log_open(supervisor: StubSupervisor, settings: Settings) -> None:
    """A panel pings every ten seconds; pings are fifty times as fast here. By default the third too many ends a connection."""
    pings = [("grpc.keepalive_time_ms", 200), ("grpc.keepalive_permit_without_calls", 1)]
    async with working(settings) as worker, worker.caller(pings) as caller:
        viewer = caller.logs()
        await viewer.initial_metadata()
        for _ in range(40):
            await pause()
            assert not viewer.done()
        viewer.cancel()


@pytest.mark.parametrize("fails", [False, True])
async def test_who_may_not_call_is_kept_away_by_the_kernel_where_it_can(settings: Settings, fails: bool) -> None:
    named = settings.model_copy(update={"allowed_callers": "192.0.2.0/24"})
    assert str(grpc_worker.allowed_callers(named).networks[-1]) == "192.0.2.0/24"
    error = OSError(92, "Protocol not available") if fails else None
    with (
        mock.patch.object(grpc_worker, "restrict_listeners", side_effect=error) as restrict,
        capture_logs() as logged,
    ):
        server = grpc_worker.make_server(mock.Mock(spec=GrpcHandlers), named)
        await server.stop(None)
        other = grpc_worker.make_server(mock.Mock(spec=GrpcHandlers), settings)
        await other.stop(None)
    assert [call.args[0] for call in restrict.call_args_list] == [settings.grpc_listen[1]]
    assert bool(logged) is fails
