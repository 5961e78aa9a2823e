"""Callers over gRPC that do harm: floods of every kind of frame, calls that are taken back, thousands of streams, windows of
nothing. Others are served meanwhile, the worker's memory is bounded, and it says and keeps little.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import psutil
import pytest
import pytest_asyncio

from pgnode.xray.transport import frames as h2
from tests.integration.worker.grpc_process import GrpcWorker
from tests.integration.worker.stage import Stage
from tests.support.grpc_node import GrpcNode
from tests.support.hostile_http2 import EMPTY_MESSAGE, HostileConnection, call_block, header_block, reset
from tests.support.polling import eventually, next_turn

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
#: What all of these together may make the worker's memory grow by. It was some 60 MiB when this was written.
GROWTH_MIB = 400
#: Calls that others make meanwhile, one after the other: each has to be answered.
CALLS_MEANWHILE = 30
#: Seconds in which an attack shows what it does, also on a busy machine.
ATTACK_SECONDS = 90

Attack = Callable[[HostileConnection, str | None], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(whole_stage: Stage) -> AsyncIterator[GrpcWorker]:
    """One worker for all attacks; at the end nothing of them is left in it, or in its log."""
    worker = GrpcWorker(whole_stage)
    try:
        await worker.start()
        assert worker.process is not None
        process = psutil.Process(worker.process.pid)
        memory, files = process.memory_info().rss, process.num_fds()
        yield worker
        assert worker.process.returncode is None
        await eventually(lambda: process.num_fds() <= files + 10, "the connections are closed")
        assert process.memory_info().rss < memory + GROWTH_MIB * MIB
        assert "Traceback" not in worker.output
        assert len(worker.output) < 20_000, worker.output[-2000:]
    finally:
        await worker.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def caller(stage: Stage, worker: GrpcWorker) -> AsyncIterator[GrpcNode]:
    """Somebody else."""
    async with worker.caller() as one:
        await one.call("GetBackendStats")
        yield one


async def attacked(
    stage: Stage,
    caller: GrpcNode,
    attack: Attack,
    *,
    key: str | None,
    settings: dict[int, int] | None = None,
    until: Callable[[list[HostileConnection]], bool] = bool,
) -> list[HostileConnection]:
    """Attack for as long as somebody else's calls take, and until something can be said of the connections; these.

    Where the server ends a connection, the next one is opened.
    """
    over = asyncio.Event()
    made: list[HostileConnection] = []

    async def attacker() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
                async with HostileConnection(stage.grpc_port, settings) as connection:
                    made.append(connection)
                    while not connection.ended and not over.is_set():
                        await attack(connection, key)
                        await next_turn()

    attacking = asyncio.create_task(attacker())
    try:
        await eventually(lambda: made and sum(made[0].got.values()) > 1, "the attack is on")
        for _ in range(CALLS_MEANWHILE):
            assert (await caller.call("GetBackendStats")).num_goroutine == 42
        # What the server answers may be read later than the others' calls are answered.
        await eventually(lambda: until(made), "the attack has done what it does", ATTACK_SECONDS)
    finally:
        over.set()
        await attacking
    return made


async def take_back(connection: HostileConnection, key: str | None) -> None:
    """Open calls and take them back, as fast as it goes."""
    block = call_block(key)
    await connection.send(
        b"".join(h2.frame(h2.HEADERS, h2.END_HEADERS, s, block) + reset(s) for s in connection.streams(200))
    )


async def take_back_whole(connection: HostileConnection, key: str | None) -> None:
    """The same with calls that have sent their message."""
    opened = call_block(key)
    message = EMPTY_MESSAGE
    await connection.send(
        b"".join(
            h2.frame(h2.HEADERS, h2.END_HEADERS, s, opened) + h2.frame(h2.DATA, h2.END_STREAM, s, message) + reset(s)
            for s in connection.streams(200)
        )
    )


async def open_only(connection: HostileConnection, key: str | None) -> None:
    """Open calls and send nothing more."""
    block = call_block(key)
    await connection.send(b"".join(h2.frame(h2.HEADERS, h2.END_HEADERS, s, block) for s in connection.streams(200)))


async def call(connection: HostileConnection, key: str | None) -> None:
    """Whole calls, without waiting for answers."""
    block = call_block(key)
    await connection.send(
        b"".join(
            h2.frame(h2.HEADERS, h2.END_HEADERS, s, block) + h2.frame(h2.DATA, h2.END_STREAM, s, EMPTY_MESSAGE)
            for s in connection.streams(200)
        )
    )


async def settings(connection: HostileConnection, _key: str | None) -> None:
    await connection.send(h2.settings_frame({h2.SETTINGS_INITIAL_WINDOW_SIZE: 65_535}) * 500)


async def pings(connection: HostileConnection, _key: str | None) -> None:
    await connection.send(h2.frame(h2.PING, 0, 0, b"12345678") * 500)


async def windows(connection: HostileConnection, _key: str | None) -> None:
    await connection.send(h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(1)) * 500)


async def priorities(connection: HostileConnection, _key: str | None) -> None:
    await connection.send(b"".join(h2.frame(0x2, 0, s, bytes(5)) for s in connection.streams(500)))


async def unknown_frames(connection: HostileConnection, _key: str | None) -> None:
    await connection.send(h2.frame(0xEE, 0xFF, 0, b"x" * 100) * 200)


async def continuations(connection: HostileConnection, key: str | None) -> None:
    """Headers that never end."""
    if connection.next_stream == 1:
        await connection.send(h2.frame(h2.HEADERS, 0, connection.streams(1)[0], call_block(key)))
    await connection.send(h2.frame(h2.CONTINUATION, 0, 1, header_block(("x-a", "b" * 100)) * 100) * 5)


async def empty_continuations(connection: HostileConnection, key: str | None) -> None:
    if connection.next_stream == 1:
        await connection.send(h2.frame(h2.HEADERS, 0, connection.streams(1)[0], call_block(key)))
    await connection.send(h2.frame(h2.CONTINUATION, 0, 1) * 500)


async def empty_data(connection: HostileConnection, key: str | None) -> None:
    if connection.next_stream == 1:
        await connection.send(h2.frame(h2.HEADERS, h2.END_HEADERS, connection.streams(1)[0], call_block(key)))
    await connection.send(h2.frame(h2.DATA, 0, 1) * 500)


FLOODS: list[Attack] = [
    settings,
    pings,
    windows,
    priorities,
    unknown_frames,
    continuations,
    empty_continuations,
    empty_data,
]


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
async def test_a_flood_of_frames_keeps_nobody_else_from_being_served(
    stage: Stage, caller: GrpcNode, flood: Attack
) -> None:
    assert await attacked(stage, caller, flood, key=None)


@pytest.mark.parametrize("flood", [continuations, settings, pings, unknown_frames], ids=lambda flood: flood.__name__)
async def test_frames_without_end_cost_their_sender_the_connection(
    stage: Stage, worker: GrpcWorker, caller: GrpcNode, flood: Attack
) -> None:
    """No call comes of them, so nobody is told of them; headers that never end are the least of a call."""
    assert worker.process is not None
    process = psutil.Process(worker.process.pid)
    memory = process.memory_info().rss
    async with HostileConnection(stage.grpc_port) as connection:
        while not connection.ended:
            await flood(connection, None)
            assert process.memory_info().rss < memory + GROWTH_MIB * MIB
            await next_turn()
    await eventually(lambda: "its caller sends much and does not show the key" in worker.output, "it is said why")
    assert (await caller.call("GetBackendStats")).num_goroutine == 42


@pytest.mark.parametrize("attack", [take_back, take_back_whole], ids=lambda attack: attack.__name__)
async def test_who_takes_calls_back_as_fast_as_it_goes_loses_its_connection(
    stage: Stage, worker: GrpcWorker, caller: GrpcNode, attack: Attack
) -> None:
    await attacked(stage, caller, attack, key=stage.api_key)
    async with HostileConnection(stage.grpc_port) as connection:
        while not connection.ended:
            await attack(connection, stage.api_key)
            await next_turn()
    await eventually(lambda: "its caller opens calls and takes them back" in worker.output, "it is said why")
    assert (await caller.call("GetBackendStats")).num_goroutine == 42


@pytest.mark.parametrize("attack", [take_back, open_only, call], ids=lambda attack: attack.__name__)
async def test_who_comes_again_and_again_without_the_key_loses_its_connection(
    stage: Stage, worker: GrpcWorker, caller: GrpcNode, attack: Attack
) -> None:
    await attacked(stage, caller, attack, key=None)
    async with HostileConnection(stage.grpc_port) as connection:
        while not connection.ended:
            await attack(connection, None)
            await next_turn()
    await eventually(lambda: "its caller comes again and again without the key" in worker.output, "it is said why")
    assert (await caller.call("GetBackendStats")).num_goroutine == 42


@pytest.mark.parametrize("attack", [open_only, call], ids=lambda attack: attack.__name__)
async def test_thousands_of_calls_on_one_connection_leave_room_for_others(
    stage: Stage, caller: GrpcNode, attack: Attack
) -> None:
    """Those above the limit are refused."""

    def thousands_are_refused(connections: list[HostileConnection]) -> bool:
        opened = sum(connection.next_stream // 2 for connection in connections)
        return opened >= 1000 and sum(connection.got[h2.RST_STREAM] for connection in connections) > 100

    assert await attacked(stage, caller, attack, key=stage.api_key, until=thousands_are_refused)


async def test_who_lets_no_byte_of_an_answer_through_holds_up_nobody(stage: Stage, caller: GrpcNode) -> None:
    nothing = {h2.SETTINGS_INITIAL_WINDOW_SIZE: 0}
    connections = await attacked(stage, caller, call, key=stage.api_key, settings=nothing)
    assert all(connection.got[h2.DATA] == 0 for connection in connections)
