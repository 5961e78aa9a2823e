"""Fixtures of the node's life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.unit.supervisor.lifecycle.stage import Stage, config_of


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults that tests make are not rendered with their tracebacks, which takes seconds."""
    with capture_logs():
        yield


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def config() -> str:
    return config_of("a")
