"""The process that waits for its config: it becomes a core, or ends and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pgnode.errors import StartFailedError
from pgnode.xray.client.api import CoreApi
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.runner import Runner
from tests.integration.xray.conftest import DEADLINE_SECONDS, api_part
from tests.support.polling import eventually
from tests.support.processes import stop


def _config(run_dir: Path) -> str:
    return json.dumps({"outbounds": [{"protocol": "freedom", "tag": "out"}], **api_part(run_dir)})


async def test_it_becomes_the_core_of_a_config_that_comes_later(run_dir: Path) -> None:
    core = EmbeddedCore()
    runner = core.warm_up()
    assert os.listdir(run_dir) == []
    running = await core.spawn(_config(run_dir), run_dir, runner=runner)
    try:
        assert running.pid == runner.pid
        async with CoreApi(running.socket_path) as api:
            await api.wait_ready(DEADLINE_SECONDS)
        assert os.getsid(running.pid) == running.pid
    finally:
        await running.terminate(DEADLINE_SECONDS)
        running.close()
    assert not psutil.pid_exists(runner.pid)


async def test_one_that_is_not_needed_ends(run_dir: Path) -> None:
    runner = Runner(None)
    assert runner.exit_code() is None
    await runner.discard()
    assert runner.exit_code() == 0


async def test_one_that_hangs_is_killed() -> None:
    runner = Runner(None, discard_seconds=0.1)
    await stop(runner.pid)
    await runner.discard()
    assert runner.exit_code() == -signal.SIGKILL


async def test_one_that_died_meanwhile_fails_the_start(run_dir: Path) -> None:
    core = EmbeddedCore()
    runner = core.warm_up()
    os.kill(runner.pid, signal.SIGKILL)
    await eventually(lambda: runner.exit_code() is not None, "its end")
    with pytest.raises(StartFailedError, match="ended before it had its config"):
        await core.spawn(_config(run_dir), run_dir, runner=runner)
    assert os.listdir(run_dir) == []


_DYING = """
import os, signal
from pgnode.xray.process.runner import Runner
if __name__ == "__main__":
    print(Runner(None).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_it_ends_with_a_supervisor_that_was_killed() -> None:
    command = [sys.executable, "-c", _DYING]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: ASYNC221 - short
    assert process.returncode == -signal.SIGKILL, process.stderr
    pid = int(process.stdout)
    await eventually(lambda: not psutil.pid_exists(pid), "its end")
