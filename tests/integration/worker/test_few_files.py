"""More connections than files: borne, said in the log once, and all is well when they have gone."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from grpc import aio

from tests.integration.worker.grpc_process import GrpcWorker
from tests.integration.worker.stage import NOT_YET, Stage
from tests.support.polling import eventually, next_turn

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN_FILES = 256
CONNECTIONS = 1200
SAID = "no more connections are taken: this process has as many open files as it may have"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_stage() -> AsyncIterator[Stage]:
    async with Stage(workers=1, open_files=OPEN_FILES) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def worker(stage: Stage) -> AsyncIterator[GrpcWorker]:
    worker = GrpcWorker(stage)
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop()


@contextlib.contextmanager
def connections(port: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing; those that cannot be made at once are being made."""
    made: list[socket.socket] = []
    try:
        for _ in range(CONNECTIONS):
            one = socket.socket()
            made.append(one)
            one.setblocking(False)
            with contextlib.suppress(OSError):
                one.connect(("127.0.0.1", port))
        yield made
    finally:
        for one in made:
            one.close()


def check_told(output: str) -> None:
    """A line or two: those that are let in when others have timed out may fill it again."""
    assert 1 <= output.count(SAID) <= 5
    assert f"limit={OPEN_FILES}" in output
    assert "LimitNOFILE" in output
    assert "Traceback" not in output


async def test_a_rest_worker(stage: Stage) -> None:
    with connections(stage.port):
        await next_turn()
        await eventually(lambda: SAID in stage.output, "it is said")
    await eventually(stage.answers, "it serves again", 60, errors=NOT_YET)
    check_told(stage.output)
    assert len(stage.output) < 20_000


async def test_a_grpc_worker(stage: Stage, worker: GrpcWorker) -> None:
    with connections(stage.grpc_port):
        await next_turn()
        await eventually(lambda: SAID in worker.output, "it is said")

    async def answers() -> bool:
        async with worker.caller() as caller:
            return bool((await caller.call("GetBackendStats", timeout_seconds=10)).num_goroutine == 42)

    await eventually(answers, "it serves again", 60, errors=(aio.AioRpcError,))
    check_told(worker.output)
    assert len(worker.output) < 200_000
