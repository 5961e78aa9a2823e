"""Callers that are slow on purpose: handshakes that stop half-way, thousands of idle connections, answers and logs that nobody
takes. Each costs a bounded amount of memory, and others are served meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import psutil
import pytest

from pgnode.bus import indexed
from pgnode.bus.snapshots import STATS_USERS
from pgnode.testing.connection import Connection
from pgnode.testing.panel import PROTOBUF, PanelClient
from pgnode.wire import service_pb2 as pb
from pgnode.xray.transport import frames as h2
from tests.integration.worker.grpc_process import GrpcWorker
from tests.integration.worker.stage import HEADER_TIMEOUT_SECONDS, MIB, Stage
from tests.support.hostile_http2 import EMPTY_MESSAGE, HostileConnection, call_block
from tests.support.polling import eventually, next_turn

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: The beginning of a TLS handshake, whose rest does not come.
HALF_HELLO = bytes.fromhex("16030102000100") + bytes(50)
HALF_HANDSHAKES, SILENT_CONNECTIONS, IDLE_CONNECTIONS = 1000, 5000, 200
SLOW_READERS, LARGE_MIB = 50, 8
VIEWERS_PER_CONNECTION, VIEWER_CONNECTIONS = 60, 34


async def served(stage: Stage, worker: GrpcWorker, calls: int = 10) -> None:
    """Somebody else is answered over both, on kept connections and on new ones."""
    async with worker.caller() as caller, stage.panel() as kept:
        for _ in range(calls):
            assert (await caller.call("GetBackendStats")).num_goroutine == 42
            assert (await kept.backend_stats()).num_goroutine == 42
            async with stage.panel() as fresh:
                assert (await fresh.backend_stats()).num_goroutine == 42


def memory(pids: list[int]) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


@contextlib.contextmanager
def plain_connections(ports: list[int], count: int, first_bytes: bytes = b"") -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    try:
        for number in range(count):
            made.append(socket.create_connection(("127.0.0.1", ports[number % len(ports)]), timeout=60))
            with contextlib.suppress(ConnectionError):
                made[-1].sendall(first_bytes)
        yield made
    finally:
        for one in made:
            one.close()


async def test_handshakes_that_stop_half_way(stage: Stage, worker: GrpcWorker) -> None:
    before = memory(stage.worker_pids())
    with plain_connections([stage.port, stage.grpc_port, stage.api_port], HALF_HANDSHAKES, HALF_HELLO):
        await served(stage, worker)
        assert memory(stage.worker_pids()) < before + HALF_HANDSHAKES * MIB // 2


async def test_connections_that_say_nothing(stage: Stage, worker: GrpcWorker, panel: PanelClient) -> None:
    idle: list[Connection] = []
    try:
        with plain_connections([stage.port, stage.api_port], SILENT_CONNECTIONS):
            await next_turn()
            for _ in range(IDLE_CONNECTIONS // 20):
                idle += await asyncio.gather(*(panel.connect() for _ in range(20)))
            await served(stage, worker)
        await asyncio.gather(*(one.wait_end(HEADER_TIMEOUT_SECONDS + 60) for one in idle))
    finally:
        await asyncio.gather(*(one.close() for one in idle))


async def test_answers_that_are_hardly_taken(stage: Stage, worker: GrpcWorker) -> None:
    name = "x" * 1000
    many = [
        pb.Stat(name=f"{name}{number}", link="traffic", type="uplink", value=1) for number in range(LARGE_MIB * 1000)
    ]
    blocks = [(indexed.name_hash(one.name), pb.StatResponse(stats=[one]).SerializeToString()) for one in many]
    await stage.supervisor.publish({STATS_USERS: indexed.pack(blocks)})
    question = pb.StatRequest(type=pb.UsersStat).SerializeToString()

    async with stage.panel() as panel:

        async def published() -> bool:
            return len(await panel.stats(pb.UsersStat)) == len(many)

        await eventually(published, "the large answer is there")
        await eventually(published, "and in the other worker", 60)
        before = memory(stage.worker_pids())
        head = panel.head("GET", "/stats", {"Content-Type": PROTOBUF, "Content-Length": str(len(question))})
        trusted = ssl.create_default_context(cafile=str(stage.settings.cert_file))
        writers = [
            (await asyncio.open_connection("127.0.0.1", stage.port, ssl=trusted))[1] for _ in range(SLOW_READERS)
        ]
        try:
            for one in writers:
                one.transport.pause_reading()  # type: ignore[attr-defined]  # it is a transport for both ways
                one.write(head + question)
            for _ in range(3):
                await served(stage, worker, calls=3)
            # Each whole answer would be eight times as much as what it may hold here.
            assert memory(stage.worker_pids()) < before + SLOW_READERS * MIB + 64 * MIB
        finally:
            for one in writers:
                one.transport.abort()
    await stage.supervisor.publish_all()


async def test_two_thousand_viewers_of_the_log_who_take_nothing(stage: Stage, worker: GrpcWorker) -> None:
    assert worker.process is not None
    block = call_block(stage.api_key, "/service.NodeService/GetLogs")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(VIEWER_CONNECTIONS):
            nothing = HostileConnection(stage.grpc_port, {h2.SETTINGS_INITIAL_WINDOW_SIZE: 0})
            viewer = await stack.enter_async_context(nothing)
            for number in viewer.streams(VIEWERS_PER_CONNECTION):
                opened = h2.frame(h2.HEADERS, h2.END_HEADERS, number, block)
                await viewer.send(opened + h2.frame(h2.DATA, h2.END_STREAM, number, EMPTY_MESSAGE))
            await viewer.wait_for(h2.HEADERS, VIEWERS_PER_CONNECTION)
        before = memory([worker.process.pid])
        for _ in range(5):
            await stage.supervisor.log_lines([b"y" * 1000] * 200)
            await served(stage, worker, calls=2)
        # A megabyte for each of them would be a gigabyte.
        assert memory([worker.process.pid]) < before + 300 * MIB
    await served(stage, worker)
    assert "Traceback" not in worker.output
    assert "Traceback" not in stage.output
