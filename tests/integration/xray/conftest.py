"""Cores for the tests of pgnode/xray: real ones, embedded and behind the interface of an executable."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pgnode.xray.client.api import CoreApi
from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.running import RunningCore
from tests.support import xray_command
from tests.support.polling import eventually

#: Generous: the machine may be busy.
DEADLINE_SECONDS = 30.0


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A private folder with a path short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def xray_executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable with the interface of Xray's."""
    return xray_command.install(tmp_path_factory.mktemp("bin"))


@pytest.fixture(params=["embedded", "executable"])
def core(request: pytest.FixtureRequest) -> Core:
    """Each kind of core in turn."""
    if request.param == "embedded":
        return EmbeddedCore()
    return ExecutableCore(request.getfixturevalue("xray_executable"))


def api_part(run_dir: Path) -> dict[str, Any]:
    """The parts of a config that the core's API needs."""
    services = ["HandlerService", "StatsService", "LoggerService"]
    levels = {"0": {"statsUserUplink": True, "statsUserDownlink": True, "statsUserOnline": True}}
    return {
        "api": {"tag": "api", "listen": str(run_dir / "core.sock"), "services": services},
        "stats": {},
        "policy": {"levels": levels},
    }


def handles_sigterm(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM (proc(5), SigCgt)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


StartCore = Callable[[Core, str, Path], Awaitable[RunningCore]]


@pytest.fixture
async def start_core() -> AsyncIterator[StartCore]:
    """Starts cores, waits for their API and ends them after the test."""
    async with AsyncExitStack() as stack:

        async def start(core: Core, config_json: str, run_dir: Path) -> RunningCore:
            running = await core.spawn(config_json, run_dir)
            stack.callback(running.close)
            stack.push_async_callback(running.terminate, 5.0)
            async with CoreApi(running.socket_path) as api:
                await api.wait_ready(DEADLINE_SECONDS)
            # The core answers a moment before it handles signals.
            await eventually(lambda: handles_sigterm(running.pid), "the core's signal handler")
            return running

        yield start


@pytest.fixture
async def api(run_dir: Path) -> AsyncIterator[CoreApi]:
    """A client of the core in the folder, where there is one."""
    async with CoreApi(run_dir / "core.sock") as client:
        yield client
