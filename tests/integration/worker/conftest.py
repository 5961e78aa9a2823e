"""A stage for the tests of workers; all tests of a module share one, and its event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator

import pytest
import pytest_asyncio

from pgnode.testing.panel import PanelClient
from tests.integration.worker.stage import Stage
from tests.support.stub_supervisor import RUNNING


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what Gunicorn printed."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Stage):
                report.sections.append((f"output of {name}", value.output))
    return report


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
