"""A core that its supervisor left running is taken over, or ended; for both kinds of core."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pgnode.xray.client.api import CoreApi
from pgnode.xray.process.adoption import adopt
from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.record import COPY_NAME, RECORD_NAME
from pgnode.xray.process.run_folder import FIFO_NAME
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore
from tests.integration.xray.plain_core import names, plain_config, text_of
from tests.support.polling import eventually

_SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore
async def main():
    kind, run_dir = sys.argv[1:3]
    core = EmbeddedCore() if kind == "embedded" else ExecutableCore(kind)
    running = await core.spawn(sys.stdin.read(), Path(run_dir), config_hash="of-before")
    print(running.pid, flush=True)
    await running.wait()
if __name__ == "__main__":
    asyncio.run(main())
"""


def _start_supervisor(core: Core, run_dir: Path, config: dict[str, Any]) -> tuple[subprocess.Popen[str], int]:
    kind = str(core.path) if isinstance(core, ExecutableCore) else "embedded"
    process = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, kind, str(run_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(config))
    process.stdin.close()
    return process, int(process.stdout.readline())


def _session(session_id: int) -> list[psutil.Process]:
    """Processes of one session; with the resource tracker of the supervisor that was its leader."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == session_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@contextlib.asynccontextmanager
async def left_alone(core: Core, run_dir: Path) -> AsyncIterator[tuple[int, int]]:
    """A core that is up and whose supervisor was killed: its pid, and the session of that supervisor."""
    supervisor, pid = await asyncio.to_thread(_start_supervisor, core, run_dir, plain_config(run_dir))
    try:
        async with CoreApi(run_dir / "core.sock") as api:
            await api.wait_ready(DEADLINE_SECONDS)
        supervisor.kill()
        supervisor.wait(DEADLINE_SECONDS)
        assert supervisor.stdout is not None
        supervisor.stdout.close()
        yield pid, supervisor.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        supervisor.kill()


async def test_adoption(core: Core, run_dir: Path) -> None:
    async with left_alone(core, run_dir) as (pid, session):
        running = await adopt(run_dir)
        assert running is not None
        try:
            assert (running.pid, running.config_hash, running.adopted) == (pid, "of-before", True)
            assert running.is_running()
            assert b"started" in os.read(running.log_fd, 65536), "lines from before the adoption are kept"
            async with CoreApi(running.socket_path) as api:
                await api.stats.sys_stats(DEADLINE_SECONDS)
            assert await running.terminate(DEADLINE_SECONDS) is None, "the code of a foreign child is not known"
            assert names(run_dir) == []
        finally:
            running.close()
        await eventually(lambda: not _session(session), "no process of the supervisor's session is left")
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    "lie", [{"start_ticks": 1}, {"boot_id": "another"}, {"pid": 2**22 - 1}, {"pid": "x"}, {"more": 1}, None]
)
async def test_a_false_record_is_cleared_and_its_core_ended(run_dir: Path, lie: dict[str, Any] | None) -> None:
    async with left_alone(EmbeddedCore(), run_dir) as (pid, _):
        for record in (run_dir / RECORD_NAME, run_dir / COPY_NAME):
            if lie is None:
                record.unlink()
            else:
                record.write_text(json.dumps(json.loads(record.read_text()) | lie))
        assert await adopt(run_dir) is None
        assert names(run_dir) == []
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_record_that_names_a_stranger_kills_nobody(run_dir: Path) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        ticks = int(text_of(f"/proc/{stranger.pid}/stat").rpartition(")")[2].split()[19])
        boot_id = text_of("/proc/sys/kernel/random/boot_id").strip()
        record = {"pid": stranger.pid, "start_ticks": ticks, "boot_id": boot_id, "config_hash": "", "kind": "embedded"}
        (run_dir / RECORD_NAME).write_text(json.dumps(record))
        os.mkfifo(run_dir / FIFO_NAME)
        assert await adopt(run_dir) is None
        assert names(run_dir) == []
        assert stranger.returncode is None
        assert psutil.Process(stranger.pid).is_running()
    finally:
        stranger.kill()
        await stranger.wait()


_LEAVING = """
import sys, uvloop
from pathlib import Path
from pgnode.xray.client.api import CoreApi
from pgnode.xray.process.embedded import EmbeddedCore
async def main():
    running = await EmbeddedCore().spawn(sys.stdin.read(), Path(sys.argv[1]))
    async with CoreApi(running.socket_path) as api:
        await api.wait_ready(15)
    print(running.pid, flush=True)
if __name__ == "__main__":
    uvloop.run(main())
"""


async def test_a_supervisor_ends_while_its_core_goes_on(run_dir: Path) -> None:
    """multiprocess by itself would wait at exit for its child."""
    command = [sys.executable, "-c", _LEAVING, str(run_dir)]
    left = await asyncio.to_thread(
        subprocess.run,
        command,
        input=json.dumps(plain_config(run_dir)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert left.returncode == 0, left.stderr
    running = await adopt(run_dir)
    assert running is not None
    try:
        assert running.pid == int(left.stdout)
        assert running.is_running()
        await running.terminate(DEADLINE_SECONDS)
    finally:
        running.send_signal(signal.SIGKILL)
        running.close()


async def test_adoption_from_an_empty_folder(run_dir: Path) -> None:
    assert await adopt(run_dir) is None
    assert await adopt(run_dir / "not there") is None


async def test_a_second_core_in_the_same_folder(core: Core, run_dir: Path, start_core: StartCore) -> None:
    first = await start_core(core, json.dumps(plain_config(run_dir)), run_dir)
    await first.terminate(DEADLINE_SECONDS)
    second = await start_core(core, json.dumps(plain_config(run_dir)), run_dir)
    await first.terminate(DEADLINE_SECONDS)
    assert second.is_running()
    assert (run_dir / RECORD_NAME).exists(), "the end of an earlier core leaves the folder of the next alone"
