"""A stage for the tests of workers; all tests of a module share one, and its event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from pgnode.testing.panel import PanelClient
from tests.integration.worker.grpc_process import GrpcWorker
from tests.integration.worker.stage import Stage
from tests.support.stub_supervisor import RUNNING


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def stage(whole_stage: Stage) -> Stage:
    """The module's stage, with a core that runs, everything published and no command seen yet."""
    whole_stage.supervisor.commands.clear()
    whole_stage.supervisor.handlers.clear()
    whole_stage.supervisor.status = RUNNING
    await whole_stage.supervisor.publish_all()
    return whole_stage


@pytest_asyncio.fixture(loop_scope="module")
async def panel(stage: Stage) -> AsyncIterator[PanelClient]:
    async with stage.panel() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_worker(whole_stage: Stage) -> AsyncIterator[GrpcWorker]:
    """The module's gRPC worker."""
    worker = GrpcWorker(whole_stage)
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def worker(stage: Stage, whole_worker: GrpcWorker) -> GrpcWorker:
    """The module's gRPC worker; another one where a test has ended it."""
    assert whole_worker.process is not None
    if whole_worker.process.returncode is not None:
        await whole_worker.start()
    return whole_worker
