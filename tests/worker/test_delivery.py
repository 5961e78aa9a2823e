"""Statistics read with reset, on real connections: the worker tells the supervisor whether they reached the caller's kernel."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pgnode.bus.commands import Command, Kind, Reply, parse_settlement
from pgnode.demo.panel import PROTOBUF, Connection, PanelClient
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.worker.stage import NOT_YET, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

DELIVERY_TIMEOUT_SECONDS = 1.5
#: More than both kernels and the worker's own buffers take while nobody reads.
LARGE = pb.StatResponse(stats=[pb.Stat(name="a" * 1000, value=1)] * 16_000).SerializeToString()
SMALL = pb.StatResponse(stats=[pb.Stat(name="alice", value=5)]).SerializeToString()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_stage() -> AsyncIterator[Stage]:
    async with Stage(env={"DELIVERY_TIMEOUT_SECONDS": str(DELIVERY_TIMEOUT_SECONDS)}) as stage:
        yield stage


def lends(stage: Stage, body: bytes) -> None:
    stage.supervisor.handlers[Kind.TAKE_STATS] = lambda _: Reply(body=body, lent=0)


async def ask(panel: PanelClient, connection: Connection, **headers: str) -> None:
    body = pb.StatRequest(type=pb.UsersStat, reset=True).SerializeToString()
    fields = {"Content-Type": PROTOBUF, "Content-Length": str(len(body)), **headers}
    connection.send(panel.head("GET", "/stats", fields) + body)
    await connection.drain()


async def settlements(stage: Stage, count: int = 1, timeout_seconds: float = 10) -> list[bool]:
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
        assert (await connection.read_response(10)).body == body
        await connection.close()
        assert await settlements(stage, number + 1) == [True] * (number + 1)


async def test_answers_one_after_the_other_on_one_connection(stage: Stage, panel: PanelClient) -> None:
    lends(stage, SMALL)
    connection = await panel.connect()
    for _ in range(20):
        await ask(panel, connection)
        assert (await connection.read_response(10)).body == SMALL
    assert await settlements(stage, 20) == [True] * 20
    await connection.close()


@pytest.mark.parametrize("orderly", [True, False], ids=["closed", "reset"])
async def test_a_caller_that_goes_after_half_the_answer_has_not(
    stage: Stage, panel: PanelClient, orderly: bool
) -> None:
    lends(stage, LARGE)
    connection = await panel.connect()
    await ask(panel, connection)
    await connection.read_head(10)
    if orderly:
        await connection.close()
    else:
        connection.end_input()
    assert await settlements(stage) == [False]


async def test_a_caller_that_never_reads_is_broken_off(stage: Stage, panel: PanelClient) -> None:
    lends(stage, LARGE)
    connection = await panel.connect()
    await ask(panel, connection)
    assert await settlements(stage, timeout_seconds=DELIVERY_TIMEOUT_SECONDS + 10) == [False]
    # What is left of it does not make a whole answer.
    assert len(await connection.wait_end(10)) < len(LARGE)


async def test_a_caller_that_went_before_the_answer_was_there(stage: Stage, panel: PanelClient) -> None:
    connection = await panel.connect()

    def too_late(_command: Command) -> Reply:
        connection.end_input()
        return Reply(body=SMALL, lent=0)

    stage.supervisor.handlers[Kind.TAKE_STATS] = too_late
    await ask(panel, connection)
    # Its kernel may have taken the bytes before it knew; what counts is that the fate is told, once.
    assert len(await settlements(stage)) == 1


async def test_a_killed_worker_finishes_no_answer_and_tells_nothing(stage: Stage, panel: PanelClient) -> None:
    lends(stage, LARGE)
    connection = await panel.connect()
    await ask(panel, connection)
    await connection.read_head(10)
    for pid in stage.worker_pids():
        os.kill(pid, signal.SIGKILL)
    assert len(await connection.wait_end(10)) < len(LARGE)
    assert stage.supervisor.of_kind(Kind.SETTLE) == []
    await eventually(stage.answers, "another worker serves", 15, errors=NOT_YET)
