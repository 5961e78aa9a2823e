"""One address that takes as many connections as it can get: it has so many and no more, and a panel behind it is served."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pgnode.testing.connection import Connection
from tests.integration.worker.grpc_process import GrpcWorker
from tests.integration.worker.stage import Stage
from tests.support.hostile_http2 import HostileConnection
from tests.support.polling import eventually

MOST, MORE = 10, 15


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    # Nothing else ends a connection here.
    env = {"MAX_CONNECTIONS_PER_ADDRESS": str(MOST), "HEADER_TIMEOUT_SECONDS": "300"}
    async with Stage(workers=1, env=env) as made:
        yield made


@pytest.mark.timeout(300)
async def test_rest(stage: Stage) -> None:
    async with stage.panel() as panel:
        # The panel's connection is kept, and never among those that end.
        await panel.backend_stats()
        silent: list[Connection] = [await panel.connect() for _ in range(MORE)]
        try:
            for one in silent[: MORE - MOST + 1]:
                await one.wait_end(60)
            await panel.backend_stats()
            async with stage.panel() as fresh:
                await fresh.backend_stats()
        finally:
            for one in silent:
                await one.close()
    await eventually(lambda: "MAX_CONNECTIONS_PER_ADDRESS" in stage.output, "the operator is told")


@pytest.mark.timeout(300)
async def test_grpc(stage: Stage) -> None:
    worker = GrpcWorker(stage)
    await worker.start()
    try:
        async with worker.caller() as caller, contextlib.AsyncExitStack() as stack:
            await caller.call("GetBackendStats")
            silent = [await stack.enter_async_context(HostileConnection(stage.grpc_port)) for _ in range(MORE)]
            await eventually(lambda: sum(one.ended for one in silent) >= MORE - MOST + 1, "those above end", 60)
            await caller.call("GetBackendStats")
        await eventually(lambda: "its caller's address has too many connections" in worker.output, "it is said why")
    finally:
        await worker.stop()
