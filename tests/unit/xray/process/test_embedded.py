"""The embedded core, the real one: its version, its judgment of a config, and a life."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from pathlib import Path

import pytest

from pgnode.errors import StartFailedError
from pgnode.xray.client.api import CoreApi
from pgnode.xray.process import embedded
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.trial import EXIT_CONFIG_REFUSED, EXIT_START_FAILED
from tests.support.polling import eventually

DEADLINE_SECONDS = 60.0
FREEDOM = {"outbounds": [{"protocol": "freedom"}]}


async def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", await EmbeddedCore().version(DEADLINE_SECONDS))


async def test_a_library_that_does_not_start() -> None:
    with pytest.raises(StartFailedError, match="the embedded core does not start"):
        await EmbeddedCore(version_config="{").version(DEADLINE_SECONDS)


async def test_its_judgment_of_a_config() -> None:
    core = EmbeddedCore()
    assert (await core.check_exit_code(json.dumps(FREEDOM), DEADLINE_SECONDS))[0] == EXIT_START_FAILED
    refused = json.dumps({"outbounds": [{"protocol": "nonsense"}]})
    assert (await core.check_exit_code(refused, DEADLINE_SECONDS))[0] == EXIT_CONFIG_REFUSED
    for text in ("{", "[]"):
        with pytest.raises(StartFailedError, match="no JSON"):
            await core.check(text, DEADLINE_SECONDS)


async def test_its_life(run_dir: Path) -> None:
    services = {"api": {"tag": "api", "listen": str(run_dir / "core.sock"), "services": ["StatsService"]}, "stats": {}}
    core = EmbeddedCore().with_assets(run_dir)
    assert core.assets_dir == run_dir
    assert str(core).startswith("embedded (Xray-core ")
    assert core.short_lived()[0][1] == "-I"
    running = await core.spawn(json.dumps(FREEDOM | services), run_dir)
    try:
        async with CoreApi(running.socket_path) as api:
            await api.wait_ready(DEADLINE_SECONDS)
        assert "core.config.json" not in os.listdir(run_dir)
    finally:
        await running.terminate(DEADLINE_SECONDS)
        running.close()


async def test_a_process_that_died_before_it_had_its_config(run_dir: Path) -> None:
    core = EmbeddedCore()
    runner = core.warm_up()
    os.kill(runner.pid, signal.SIGKILL)
    await eventually(lambda: runner.exit_code() is not None, "its end")
    with pytest.raises(StartFailedError, match="ended before it had its config"):
        await core.spawn("{}", run_dir, runner=runner)
    assert os.listdir(run_dir) == []


async def test_a_system_without_room_for_a_process(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(embedded, "Runner", full)
    with pytest.raises(
        StartFailedError, match="no process for the core can be started: Resource temporarily unavailable"
    ):
        await EmbeddedCore().spawn("{}", run_dir)
    assert os.listdir(run_dir) == []
