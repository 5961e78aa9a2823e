"""Large answers and those read with reset, on real connections: the worker tells the supervisor whether the latter reached the
caller's kernel, and keeps little of what callers do not take."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial

import psutil
import pytest
import pytest_asyncio

from pgnode.bus import indexed
from pgnode.bus.commands import Command, Kind, Reply, parse_settlement
from pgnode.bus.snapshots import STATS_USERS
from pgnode.testing.connection import Connection
from pgnode.testing.panel import PROTOBUF, PanelClient
from pgnode.wire import service_pb2 as pb
from tests.integration.worker.stage import NOT_YET, Stage
from tests.support.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Long enough for a machine with other things to do, on which a reader stands still for seconds.
DELIVERY_TIMEOUT_SECONDS = 15.0
STALL_SECONDS = 20.0
#: More than both kernels and the worker's own buffers take while nobody reads.
LARGE = pb.StatResponse(stats=[pb.Stat(name="a" * 1000, value=1)] * 16_000).SerializeToString()
ALL_USERS = pb.StatRequest(type=pb.UsersStat).SerializeToString()
SMALL = pb.StatResponse(stats=[pb.Stat(name="alice", value=5)]).SerializeToString()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_stage() -> AsyncIterator[Stage]:
    env = {"DELIVERY_TIMEOUT_SECONDS": str(DELIVERY_TIMEOUT_SECONDS), "STALL_TIMEOUT_SECONDS": str(STALL_SECONDS)}
    async with Stage(env=env) as stage:
        yield stage


def lends(stage: Stage, body: bytes) -> None:
    stage.supervisor.handlers[Kind.TAKE_STATS] = lambda _: Reply(body=body, lent=0)


async def ask(panel: PanelClient, connection: Connection, *, reset: bool = True, **headers: str) -> None:
    body = pb.StatRequest(type=pb.UsersStat, reset=reset).SerializeToString()
    fields = {"Content-Type": PROTOBUF, "Content-Length": str(len(body)), **headers}
    connection.send(panel.head("GET", "/stats", fields) + body)
    await connection.drain()


async def settlements(stage: Stage, count: int = 1, timeout_seconds: float = 30) -> list[bool]:
    """What became of every answer since the test began; each settlement names the command that took."""

    def told() -> list[Command]:
        found = stage.supervisor.of_kind(Kind.SETTLE)
        return found if len(found) >= count else []

    found = [parse_settlement(command.body) for command in await eventually(told, "told", timeout_seconds)]
    takes = {command.id for command in stage.supervisor.of_kind(Kind.TAKE_STATS)}
    assert {loan for loan, _ in found} <= takes
    return [delivered for _, delivered in found]


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_an_answer_that_was_read_is_delivered(stage: Stage, panel: PanelClient, body: bytes) -> None:
    lends(stage, body)
    assert await panel.stats(pb.UsersStat, reset=True) == list(pb.StatResponse.FromString(body).stats)
    assert await settlements(stage) == [True]


async def test_a_caller_that_closes_after_its_answer_has_received_it(stage: Stage, panel: PanelClient) -> None:
    for number, body in enumerate((SMALL, LARGE)):
        lends(stage, body)
        connection = await panel.connect()
        await ask(panel, connection, Connection="close")
        assert (await connection.read_response(30)).body == body
        await connection.close()
        assert await settlements(stage, number + 1) == [True] * (number + 1)


async def test_answers_one_after_the_other_on_one_connection(stage: Stage, panel: PanelClient) -> None:
    lends(stage, SMALL)
    connection = await panel.connect()
    for _ in range(20):
        await ask(panel, connection)
        assert (await connection.read_response(30)).body == SMALL
    assert await settlements(stage, 20) == [True] * 20
    await connection.close()


@pytest.mark.parametrize("orderly", [True, False], ids=["closed", "reset"])
async def test_a_caller_that_goes_after_half_the_answer_has_not(
    stage: Stage, panel: PanelClient, orderly: bool
) -> None:
    lends(stage, LARGE)
    connection = await panel.connect()
    await ask(panel, connection)
    await connection.read_head(30)
    if orderly:
        await connection.close()
    else:
        connection.end_input()
    assert await settlements(stage) == [False]


async def test_a_caller_that_never_reads_is_disconnected(stage: Stage, panel: PanelClient) -> None:
    lends(stage, LARGE)
    connection = await panel.connect()
    await ask(panel, connection)
    assert await settlements(stage, timeout_seconds=DELIVERY_TIMEOUT_SECONDS + 30) == [False]
    # What is left of it does not make a whole answer.
    assert len(await connection.wait_end(30)) < len(LARGE)


async def test_a_caller_that_went_before_the_answer_was_there(stage: Stage, panel: PanelClient) -> None:
    connection = await panel.connect()

    def too_late(_command: Command) -> Reply:
        connection.end_input()
        return Reply(body=SMALL, lent=0)

    stage.supervisor.handlers[Kind.TAKE_STATS] = too_late
    await ask(panel, connection)
    # Its kernel may have taken the bytes before it knew; what counts is that the fate is told, once.
    assert len(await settlements(stage)) == 1


async def test_large_answers_that_many_callers_do_not_take_cost_little(stage: Stage, panel: PanelClient) -> None:
    """And each caller gets all of it in the end; one that takes nothing is closed, unless it looks at the log."""
    await stage.supervisor.publish({STATS_USERS: indexed.pack([(0, LARGE)])})
    # A worker that takes it in only now needs memory for that.
    await eventually(partial(served_by_all, stage, panel, set()), "every worker serves the large answer", 60)
    async with panel.logs() as viewer:
        # More than the sockets' buffers, which may grow to ten megabytes, and the viewer's queue hold.
        for _ in range(60):
            await stage.supervisor.log_lines([b"z" * 2000] * 400)
        # What is on its way to the workers is no memory of the answers.
        async with panel.logs() as reader:
            await stage.supervisor.log_lines([b"the last of them"])
            await reader.wait_for("the last of them", 30)
        await callers_who_do_not_read(stage, panel)
        # Those of its queue, or those that a busy worker was too slow to take off the bus.
        await viewer.wait_for_match(r"\[\d+ lines (dropped|lost)", 30)
        await stage.supervisor.log_lines([b"seen again"])
        await viewer.wait_for("seen again", 30)


async def served_by_all(stage: Stage, panel: PanelClient, serving: set[int]) -> bool:
    """Ask on one more connection; whether every worker has given the large answer by now."""
    connection = await panel.connect()
    try:
        await ask(panel, connection, reset=False)
        response = await connection.read_response(30)
        if len(response.body) == len(LARGE):
            serving |= {pid for pid in stage.worker_pids() if has_connection(pid, connection.source_port)}
    finally:
        await connection.close()
    return serving >= set(stage.worker_pids())


async def callers_who_do_not_read(stage: Stage, panel: PanelClient) -> None:
    connections = [await panel.connect() for _ in range(24)]
    try:
        before = memory_bytes(stage)
        for connection in connections:
            await ask(panel, connection, reset=False)
            await connection.read_head(30)
        assert memory_bytes(stage) - before < 24 * len(LARGE) // 8
        *patient, silent = connections
        bodies = await asyncio.gather(
            *(connection.read_body(200, {"content-length": str(len(LARGE))}, 120) for connection in patient)
        )
        assert {response.body for response in bodies} == {LARGE}
        await eventually(lambda: not is_held(stage, silent.source_port), "the silent one is closed", STALL_SECONDS + 30)
    finally:
        for connection in connections:
            await connection.close()


def is_held(stage: Stage, port: int) -> bool:
    """Whether a worker has a connection with that port of ours."""
    return any(has_connection(pid, port) for pid in stage.worker_pids())


def has_connection(pid: int, port: int) -> bool:
    """Whether a process has a connection with that port of ours."""
    return any(found.raddr and found.raddr.port == port for found in psutil.Process(pid).net_connections("tcp"))


def memory_bytes(stage: Stage) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in stage.worker_pids())


async def test_a_killed_worker_finishes_no_answer_and_tells_nothing(stage: Stage, panel: PanelClient) -> None:
    lends(stage, LARGE)
    connection = await panel.connect()
    await ask(panel, connection)
    await connection.read_head(30)
    for pid in stage.worker_pids():
        os.kill(pid, signal.SIGKILL)
    assert len(await connection.wait_end(30)) < len(LARGE)
    assert stage.supervisor.of_kind(Kind.SETTLE) == []
    await eventually(stage.answers, "another worker serves", errors=NOT_YET)
