"""A core in memory, and the client of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pgnode.xray.client.api import CoreApi
from tests.unit.xray.fake_core import FakeCore


@pytest.fixture
async def fake() -> AsyncIterator[FakeCore]:
    """The core, serving on a socket whose path is short enough."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    core = FakeCore(folder / "core.sock")
    await core.start()
    yield core
    core.awake.set()
    await core.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def api(fake: FakeCore) -> AsyncIterator[CoreApi]:
    """The client of it."""
    async with CoreApi(fake.socket_path) as found:
        yield found
