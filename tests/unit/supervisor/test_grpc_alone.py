"""gRPC workers without a supervisor beside them obey signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.errors import PortInUseError, SettingsError
from pgnode.settings import Settings, load
from pgnode.settings.handover import VARIABLE, hand_over, load_handed_over
from pgnode.supervisor.grpc_alone import GrpcAlone
from pgnode.supervisor.host.service_manager import ServiceManager
from pgnode.supervisor.processes.restarts import Restarter
from pgnode.testing.clock import HurryingClock
from pgnode.testing.ports import free_port
from tests.support.polling import eventually

MODULE = "tests.support.fake_grpc_worker"


class Stage:
    """The workers, and the settings that there are now."""

    def __init__(self, folder: Path) -> None:
        self.values: dict[str, Any] = {
            "state_dir": str(folder),
            "node_host": "127.0.0.1",
            "grpc_port": free_port(),
            "redis_url": "redis://192.0.2.1",
        }
        self.handover = hand_over(self.settings(), folder)
        self.alone = GrpcAlone(
            self.settings(),
            self.handover,
            self.settings,
            ServiceManager(),
            module=MODULE,
            restarter=Restarter(HurryingClock()),
        )
        self.running: asyncio.Task[int] | None = None

    def settings(self) -> Settings:
        return load(**self.values)

    def pids(self) -> set[int]:
        return {pid for pid in self.alone._workers.pids.values() if pid is not None}

    async def start(self) -> None:
        self.running = asyncio.create_task(self.alone.run())
        await eventually(lambda: self.alone._workers._group, "workers serve, and are kept")

    def send(self, number: signal.Signals) -> None:
        os.kill(os.getpid(), number)


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    await made.start()
    yield made
    assert made.running is not None
    if not made.running.done():
        made.send(signal.SIGTERM)
    assert await made.running == 0
    assert not made.pids()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        asyncio.get_running_loop().remove_signal_handler(number)
    os.close(made.handover.descriptor)


async def test_there_are_more_and_fewer_and_one_stays(stage: Stage) -> None:
    assert "GrpcAlone" in repr(stage.alone)
    [first] = stage.pids()
    stage.send(signal.SIGTTIN)
    await eventually(lambda: len(stage.pids()) == 2, "one more")
    stage.send(signal.SIGTTOU)
    await eventually(lambda: stage.pids() == {first}, "one fewer")
    stage.send(signal.SIGTTOU)
    stage.send(signal.SIGINT)
    assert stage.running is not None
    assert await stage.running == 0


async def test_one_that_is_killed_is_brought_back(stage: Stage) -> None:
    [first] = stage.pids()
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: stage.pids() and first not in stage.pids(), "another one")


async def test_settings_are_taken_anew(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.values["grpc_workers"] = 3
    stage.send(signal.SIGHUP)
    # The worker of this test obeys no SIGTERM: it is ended by it, and brought back.
    await eventually(lambda: len(stage.pids()) == 3, "as many as the settings say now")
    monkeypatch.setenv(VARIABLE, str(stage.handover.descriptor))
    assert load_handed_over().grpc_workers == 3
    stage.values["grpc_port"] += 1
    said = ""
    stage.send(signal.SIGHUP)

    def refused() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "GRPC_PORT is another one now, which needs a stop and a start" in said

    await eventually(refused, "it is said")
    assert load_handed_over().grpc_port != stage.values["grpc_port"]


async def test_settings_that_are_not_allowed_change_nothing(stage: Stage) -> None:
    def wrong() -> Settings:
        raise SettingsError("GRPC_WORKERS=x is not allowed")

    before = stage.pids()
    stage.alone._again = wrong
    stage.send(signal.SIGHUP)
    stage.send(signal.SIGTTIN)
    await eventually(lambda: len(stage.pids()) == 2, "it goes on")
    assert before < stage.pids()


async def test_a_port_of_somebody_else_is_named(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", stage.values["grpc_port"]))
        other.listen()
        with pytest.raises(PortInUseError, match="GRPC_PORT"):
            await stage.alone.run()
    os.close(stage.handover.descriptor)
