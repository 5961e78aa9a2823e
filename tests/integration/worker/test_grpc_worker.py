"""A gRPC worker as a process, on a real bus: its certificate, its viewers, connections that do nothing, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2

from pgnode.bus.commands import Kind
from pgnode.settings import load
from pgnode.wire import service_pb2 as pb
from tests.integration.worker.grpc_process import SERVING, GrpcWorker
from tests.integration.worker.stage import HEADER_TIMEOUT_SECONDS, MIB, Stage
from tests.support.grpc_node import GrpcNode
from tests.support.identities import make_identity
from tests.support.polling import eventually, next_turn

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_SERVING = int(health_pb2.HealthCheckResponse.NOT_SERVING)

VIEWERS = 300
SILENT_CONNECTIONS = 4_000
IDLE_CONNECTIONS = 300


@pytest_asyncio.fixture(loop_scope="module")
async def caller(worker: GrpcWorker) -> AsyncIterator[GrpcNode]:
    async with worker.caller() as one:
        yield one


async def test_reads_are_those_of_the_snapshots(stage: Stage, caller: GrpcNode) -> None:
    assert (await caller.call("GetBackendStats")).num_goroutine == 42
    assert (await caller.call("GetSystemStats")).mem_total == 1000
    stats = await caller.call("GetStats", pb.StatRequest(type=pb.UserStat, name="alice"))
    assert {stat.value for stat in stats.stats} == {10, 20}
    assert (await caller.call("GetUserOnlineStats", pb.StatRequest(name="alice"))).value == 2
    with pytest.raises(aio.AioRpcError) as caught:
        await caller.call("GetUserOnlineStats", pb.StatRequest(name="bob"))
    assert caught.value.code() is StatusCode.NOT_FOUND


async def test_a_stream_of_users_becomes_commands_in_its_order(stage: Stage, caller: GrpcNode) -> None:
    emails = [f"u{number}" for number in range(2000)]
    await caller.stream("SyncUser", [pb.User(email=email, inbounds=["VLESS"]) for email in emails])
    commands = stage.supervisor.of_kind(Kind.SYNC_USER)
    assert [pb.User.FromString(command.body).email for command in commands] == emails


async def test_a_message_over_the_limit_is_refused(stage: Stage, caller: GrpcNode) -> None:
    await caller.call("SyncUsers", pb.Users(users=[pb.User(email="x" * (MIB - 100))]))
    with pytest.raises(aio.AioRpcError) as caught:
        await caller.call("SyncUsers", b"\0" * (MIB + 1))
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    chunk = pb.UsersChunk(users=[pb.User(email="x" * (MIB // 2))])
    with pytest.raises(aio.AioRpcError) as caught:
        await caller.stream("SyncUsersChunked", [chunk] * 3)
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    assert "MAX_BODY_MIB" in (caught.value.details() or "")
    assert len(stage.supervisor.of_kind(Kind.SYNC_USERS)) == 1
    assert stage.supervisor.of_kind(Kind.SYNC_CHUNKED) == []


async def test_hundreds_of_viewers_and_one_that_does_not_read(stage: Stage, worker: GrpcWorker) -> None:
    callers = [worker.caller() for _ in range(5)]
    lazy_caller = worker.caller()
    try:
        # It takes the headers, and not one line: a window's worth of them is all that is ever sent to it.
        lazy = lazy_caller.logs()
        await lazy.initial_metadata()
        viewers = [callers[number % len(callers)].logs() for number in range(VIEWERS)]
        await asyncio.gather(*(viewer.initial_metadata() for viewer in viewers))
        filler = b"x" * 10_000

        async def read_to(viewer: Any, wanted: str) -> None:
            while wanted not in pb.Log.FromString(await viewer.read()).detail:
                pass

        for round_number in range(3):
            last = f"last of round {round_number}"
            await stage.supervisor.log_lines([filler] * 10 + [last.encode()])
            async with asyncio.timeout(30):
                await asyncio.gather(*(read_to(viewer, last) for viewer in viewers))
            assert (await callers[0].call("GetBackendStats")).num_goroutine == 42
        async with asyncio.timeout(30):
            await read_to(lazy, "last of round 2")
    finally:
        for one in (*callers, lazy_caller):
            await one.channel.close()


async def test_thousands_of_connections_that_do_nothing_do_not_stop_service(stage: Stage, worker: GrpcWorker) -> None:
    context = ssl.create_default_context(cafile=str(stage.settings.cert_file))
    context.set_alpn_protocols(["h2"])
    silent: list[socket.socket] = []
    idle: list[asyncio.StreamWriter] = []
    try:
        for number in range(SILENT_CONNECTIONS):
            silent.append(socket.create_connection(("127.0.0.1", stage.grpc_port), timeout=30))
            if number % 200 == 0:
                await next_turn()
        for _ in range(IDLE_CONNECTIONS):
            _, writer = await asyncio.open_connection("127.0.0.1", stage.grpc_port, ssl=context)
            idle.append(writer)
        async with worker.caller() as caller:
            # Before any of the others is closed for its silence, or soon after.
            async with asyncio.timeout(20):
                assert (await caller.call("GetBackendStats")).num_goroutine == 42

            def all_closed() -> bool:
                """Those that did not even begin a handshake are closed after the time for headers."""
                return all(_closed(one) for one in silent[:: SILENT_CONNECTIONS // 20])

            await eventually(all_closed, "silent connections are closed", HEADER_TIMEOUT_SECONDS + 60)
            assert (await caller.call("GetBackendStats")).num_goroutine == 42
    finally:
        for one in silent:
            one.close()
        for writer in idle:
            writer.close()
        for writer in idle:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await writer.wait_closed()


def _closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def served_certificate(port: int) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain, context.wrap_socket(plain) as secure:
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")


async def test_a_new_certificate_is_taken_without_a_restart_on_both_faces(stage: Stage, worker: GrpcWorker) -> None:
    cert_file, key_file = stage.settings.cert_file, stage.settings.cert_key_file
    before = {path: path.read_bytes() for path in (cert_file, key_file)}
    other = load(state_dir=stage.folder / "other", node_host="127.0.0.1", api_key=stage.api_key)
    make_identity(other)
    new = other.cert_file.read_text().strip()
    ports = {"REST": stage.port, "gRPC": stage.grpc_port}

    def served() -> dict[str, str]:
        return {name: served_certificate(port).strip() for name, port in ports.items()}

    old = served()
    assert set(old.values()) == {before[cert_file].decode().strip()}
    held = worker.caller()
    try:
        await held.call("GetBackendStats")
        _replace(cert_file, other.cert_file)
        # A certificate without its key is nothing to serve with.
        await eventually(lambda: "not used" in stage.output, "REST workers say that the pair does not fit")
        assert served() == old
        _replace(key_file, other.cert_key_file)
        await eventually(lambda: asyncio.to_thread(lambda: set(served().values()) == {new}), "both serve the new one")
        assert (await held.call("GetBackendStats")).num_goroutine == 42, "connections that are there stay"
        async with worker.caller() as fresh:
            assert (await fresh.call("GetBackendStats")).num_goroutine == 42
    finally:
        await held.channel.close()
        for path, content in before.items():
            path.write_bytes(content)
        await eventually(lambda: asyncio.to_thread(lambda: served() == old), "and the old one when it is back")


def _replace(file: Path, by: Path) -> None:
    """As tools that renew certificates do: in one step."""
    shutil.copy(by, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


async def test_not_serving_while_the_store_is_away(stage: Stage, caller: GrpcNode) -> None:
    await stage.kill_valkey()

    async def serving() -> bool:
        return (await caller.health()) == SERVING

    async def not_serving() -> bool:
        return (await caller.health()) == NOT_SERVING

    await eventually(not_serving, "not serving")
    assert (await caller.call("GetBackendStats")).num_goroutine == 42, "reads go on"
    with pytest.raises(aio.AioRpcError) as caught:
        await caller.stream("SyncUser", [pb.User(email="alice")])
    assert caught.value.code() is StatusCode.UNAVAILABLE
    assert "(at user 1 of the stream, 'alice') (0 of 1 users applied)" in (caught.value.details() or "")
    await stage.start_valkey()
    await stage.supervisor.publish_all()
    await eventually(serving, "serving again")


async def test_a_worker_told_to_end_finishes_what_it_has(stage: Stage, worker: GrpcWorker) -> None:
    assert worker.process is not None
    async with worker.caller() as caller, worker.caller() as lazy:
        viewer, unread = caller.logs(), lazy.logs()
        await viewer.initial_metadata()
        await unread.initial_metadata()
        await stage.supervisor.log_lines([b"x" * 10_000] * 500)
        call = caller.channel.stream_unary("/service.NodeService/SyncUser")(metadata=caller.metadata, timeout=20)
        await call.write(pb.User(email="alice").SerializeToString())
        await eventually(lambda: stage.supervisor.of_kind(Kind.SYNC_USER), "it is under way")
        worker.process.send_signal(signal.SIGTERM)
        await call.done_writing()
        await call
        async with asyncio.timeout(30):
            assert await worker.process.wait() == 0
