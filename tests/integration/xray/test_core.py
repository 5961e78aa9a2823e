"""The core as a process: start, check, end, adoption and what is left behind, for both kinds of core."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pgnode.errors import StartFailedError
from pgnode.testing.ports import free_port
from pgnode.xray.client.api import CoreApi
from pgnode.xray.process.adoption import adopt
from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.record import COPY_NAME, RECORD_NAME
from pgnode.xray.process.run_folder import FIFO_NAME
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore, api_part, handles_sigterm
from tests.support.polling import eventually

SAMPLES = Path(__file__).parents[2] / "samples"


def _config(run_dir: Path, port: int | None = None, loglevel: str = "warning") -> dict[str, Any]:
    inbound = {
        "tag": "in",
        "listen": "127.0.0.1",
        "port": port or free_port(),
        "protocol": "dokodemo-door",
        "settings": {"address": "127.0.0.1", "port": 9},
    }
    return {
        "log": {"loglevel": loglevel},
        "inbounds": [inbound],
        "outbounds": [{"protocol": "freedom", "tag": "out"}],
        **api_part(run_dir),
    }


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _text(path: str) -> str:
    return Path(path).read_text()


def _held(pid: int) -> list[str]:
    """What the descriptors of a process lead to."""
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


def _dumps(config: dict[str, Any]) -> str:
    return json.dumps(config)


# --- version and check


async def test_version_is_the_cores_own(core: Core) -> None:
    version = await core.version(DEADLINE_SECONDS)
    assert re.fullmatch(r"\d{2}\.\d+\.\d+", version)
    assert await core.version(0.0) == version, "the second answer is remembered: nobody is asked again"


async def test_check_accepts_and_binds_nothing(core: Core, run_dir: Path) -> None:
    port = free_port()
    config = _config(run_dir, port)
    abstract = {"listen": f"@{run_dir.name}", "protocol": "vless", "settings": {"clients": [], "decryption": "none"}}
    config["inbounds"].append(abstract)
    await core.check(_dumps(config), DEADLINE_SECONDS)
    assert _names(run_dir) == [], "not even the API's socket"


@pytest.mark.parametrize("name", ["wide.json", "panel-default.json", "balancer.json"])
async def test_check_accepts_the_samples(core: Core, name: str) -> None:
    text = (SAMPLES / name).read_text().replace('"geoip:private"', '"10.0.0.0/8"')
    config = json.loads(text)
    config["inbounds"] = [item for item in config["inbounds"] if item["tag"] != "API_INBOUND"]
    # The node's config rewriting takes the files out: opening them is part of what the core checks.
    config["log"] = {"loglevel": "warning"}
    await core.check(_dumps(config), DEADLINE_SECONDS)


async def test_check_beside_a_running_core_with_the_same_config(
    core: Core, run_dir: Path, start_core: StartCore
) -> None:
    config = _dumps(_config(run_dir))
    running = await start_core(core, config, run_dir)
    await core.check(config, DEADLINE_SECONDS)
    async with CoreApi(running.socket_path) as api:
        assert (await api.stats.sys_stats(DEADLINE_SECONDS)).NumGoroutine > 0


@pytest.mark.parametrize(
    "change",
    [
        {"inbounds": [{"port": 1, "protocol": "nonsense"}]},
        {"inbounds": [{"tag": "a", "port": 1, "protocol": "http"}, {"tag": "a", "port": 2, "protocol": "http"}]},
        {"outbounds": [{"protocol": "nonsense"}]},
        {"inbounds": [{"port": 1, "protocol": "vless", "settings": {"clients": [{"id": "x" * 40}]}}]},
    ],
)
async def test_check_refuses(core: Core, run_dir: Path, change: dict[str, Any]) -> None:
    config = _dumps(_config(run_dir) | change)
    code, _ = await core.check_exit_code(config, DEADLINE_SECONDS)
    assert code == 23
    with pytest.raises(StartFailedError) as caught:
        await core.check(config, DEADLINE_SECONDS)
    assert str(caught.value)


async def test_the_reason_of_an_executable_comes_first(run_dir: Path) -> None:
    script = run_dir / "xray"
    script.write_text(
        "#!/bin/sh\ncat >/dev/null\necho 'Xray 26.10.10 (Xray)'\n"
        "echo 'Failed to start: main: failed to load config files: [stdin:] > infra/conf: failed to build inbound config'"
        "' with tag in > infra/conf: unknown thing'\nexit 23\n"
    )
    script.chmod(0o700)
    with pytest.raises(
        StartFailedError, match=r"^infra/conf: failed to build inbound config with tag in > infra/conf: unk"
    ):
        await ExecutableCore(script).check("{}", DEADLINE_SECONDS)


async def test_check_of_no_json(core: Core) -> None:
    with pytest.raises(StartFailedError):
        await core.check("{", DEADLINE_SECONDS)


async def test_check_gives_up_at_the_deadline(core: Core, run_dir: Path) -> None:
    with pytest.raises(StartFailedError, match="did not answer within"):
        await core.check(_dumps(_config(run_dir)), 0.001)


async def test_an_executable_that_is_none(run_dir: Path) -> None:
    missing = ExecutableCore(run_dir / "xray")
    with pytest.raises(StartFailedError, match="cannot be run: No such file"):
        await missing.version(DEADLINE_SECONDS)
    with pytest.raises(StartFailedError, match="cannot be run: No such file"):
        await missing.spawn(_dumps(_config(run_dir)), run_dir)
    assert _names(run_dir) == []
    with pytest.raises(StartFailedError, match="is no Xray"):
        await ExecutableCore("/bin/false").version(DEADLINE_SECONDS)


# --- life of a core


async def test_start_and_end(core: Core, run_dir: Path) -> None:
    before = time.time()
    running = await core.spawn(_dumps(_config(run_dir)), run_dir)
    try:
        async with CoreApi(running.socket_path) as api:
            await api.wait_ready(DEADLINE_SECONDS)
        assert running.is_running()
        assert before - 2 < running.started_at < time.time() + 2
        process = psutil.Process(running.pid)
        assert os.getsid(running.pid) == running.pid, "a terminal's Ctrl-C must not reach it"
        assert process.cwd() == "/"
        assert _names(run_dir) == [COPY_NAME, RECORD_NAME, FIFO_NAME, "core.sock", "core.sock.lock"], (
            "the config does not stay"
        )
        assert all((run_dir / name).stat().st_mode & 0o077 == 0 for name in _names(run_dir))
        await eventually(lambda: handles_sigterm(running.pid), "the core's signal handler")
        assert await running.terminate(DEADLINE_SECONDS) == 0
        assert not running.is_running()
        assert _names(run_dir) == []
        assert not psutil.pid_exists(running.pid), "reaped"
    finally:
        running.send_signal(signal.SIGKILL)
        running.close()


async def test_wait_tells_the_exit_code(core: Core, run_dir: Path) -> None:
    running = await core.spawn(_dumps(_config(run_dir) | {"outbounds": [{"protocol": "nonsense"}]}), run_dir)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert list(await asyncio.gather(running.wait(), running.wait())) == [23, 23]
        assert await running.terminate(1) == 23
    finally:
        running.close()


async def test_a_port_in_use_ends_the_core(core: Core, run_dir: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        running = await core.spawn(_dumps(_config(run_dir, taken.getsockname()[1])), run_dir)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await running.wait() == 255
        finally:
            await running.terminate(1)
            running.close()


async def test_a_killed_core_is_noticed(core: Core, run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(core, _dumps(_config(run_dir)), run_dir)
    waiting = asyncio.create_task(running.wait())
    os.kill(running.pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await waiting == -signal.SIGKILL


async def test_a_core_that_does_not_listen_is_killed(core: Core, run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(core, _dumps(_config(run_dir)), run_dir)
    running.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await running.terminate(0.2) == -signal.SIGKILL


async def test_no_descriptor_of_ours_reaches_the_core(core: Core, run_dir: Path, start_core: StartCore) -> None:
    lock = os.open(run_dir, os.O_RDONLY)
    os.set_inheritable(lock, True)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        running = await start_core(core, _dumps(_config(run_dir)), run_dir)
        held = _held(running.pid)
        assert str(run_dir / FIFO_NAME) in held
        assert str(run_dir) not in held
    finally:
        os.close(lock)
    again = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(again)


async def test_the_runner_does_not_import_our_main(run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(EmbeddedCore(), _dumps(_config(run_dir)), run_dir)
    maps = _text(f"/proc/{running.pid}/maps")
    assert "xray" in maps
    assert "cygrpc" not in maps, "what this program imports does not burden the runner"


# --- output


async def test_output_goes_to_the_fifo(core: Core, run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(core, _dumps(_config(run_dir)), run_dir)
    seen = bytearray()

    def started() -> bool:
        with contextlib.suppress(BlockingIOError):
            seen.extend(os.read(running.log_fd, 65536))
        return b"started" in seen

    await eventually(started, "the core's own sentence in the FIFO")
    assert b"Xray" in seen
    await running.terminate(DEADLINE_SECONDS)
    while block := os.read(running.log_fd, 65536):
        seen.extend(block)
    assert block == b"", "the end of the core is the end of its output"


async def test_a_reader_that_is_gone_stalls_nothing(core: Core, run_dir: Path, start_core: StartCore) -> None:
    config = _config(run_dir, loglevel="debug")
    port = config["inbounds"][0]["port"]
    running = await start_core(core, _dumps(config), run_dir)
    os.close(running.log_fd)
    running.log_fd = -1

    async def connect() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    async with CoreApi(running.socket_path) as api, asyncio.timeout(120):
        while not _is_full(running.log_path):
            await asyncio.gather(*(connect() for _ in range(100)))
        await asyncio.gather(*(connect() for _ in range(100)))
        await api.stats.sys_stats(DEADLINE_SECONDS)
    assert await running.terminate(DEADLINE_SECONDS) == 0


def _is_full(fifo: Path) -> bool:
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(writer, select.POLLOUT)
        return not poll.poll(0)
    finally:
        os.close(writer)


# --- adoption

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
    process.stdin.write(_dumps(config))
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


async def test_adoption(core: Core, run_dir: Path) -> None:
    supervisor, pid = await asyncio.to_thread(_start_supervisor, core, run_dir, _config(run_dir))
    try:
        async with CoreApi(run_dir / "core.sock") as api:
            await api.wait_ready(DEADLINE_SECONDS)
        supervisor.kill()
        supervisor.wait(DEADLINE_SECONDS)
        assert supervisor.stdout is not None
        supervisor.stdout.close()
        running = await adopt(run_dir)
        assert running is not None
        try:
            assert (running.pid, running.config_hash, running.adopted) == (pid, "of-before", True)
            assert running.is_running()
            assert b"started" in os.read(running.log_fd, 65536), "lines of before adoption are kept"
            async with CoreApi(running.socket_path) as api:
                await api.stats.sys_stats(DEADLINE_SECONDS)
            assert await running.terminate(DEADLINE_SECONDS) is None, "the code of a foreign child is not known"
            assert _names(run_dir) == []
        finally:
            running.close()
        await eventually(lambda: not _session(supervisor.pid), "no process of the supervisor's session is left")
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    finally:
        _kill(pid)
        supervisor.kill()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "lie", [{"start_ticks": 1}, {"boot_id": "another"}, {"pid": 2**22 - 1}, {"pid": "x"}, {"more": 1}, None]
)
async def test_a_false_record_is_cleared_and_its_core_ended(run_dir: Path, lie: dict[str, Any] | None) -> None:
    supervisor, pid = await asyncio.to_thread(_start_supervisor, EmbeddedCore(), run_dir, _config(run_dir))
    try:
        async with CoreApi(run_dir / "core.sock") as api:
            await api.wait_ready(DEADLINE_SECONDS)
        supervisor.kill()
        supervisor.wait(DEADLINE_SECONDS)
        assert supervisor.stdout is not None
        supervisor.stdout.close()
        for record in (run_dir / RECORD_NAME, run_dir / COPY_NAME):
            if lie is None:
                record.unlink()
            else:
                record.write_text(json.dumps(json.loads(record.read_text()) | lie))
        assert await adopt(run_dir) is None
        assert _names(run_dir) == []
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    finally:
        _kill(pid)
        supervisor.kill()


async def test_a_record_that_names_a_stranger_kills_nobody(run_dir: Path) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        ticks = int(_text(f"/proc/{stranger.pid}/stat").rpartition(")")[2].split()[19])
        boot_id = _text("/proc/sys/kernel/random/boot_id").strip()
        record = {"pid": stranger.pid, "start_ticks": ticks, "boot_id": boot_id, "config_hash": "", "kind": "embedded"}
        (run_dir / RECORD_NAME).write_text(json.dumps(record))
        os.mkfifo(run_dir / FIFO_NAME)
        assert await adopt(run_dir) is None
        assert _names(run_dir) == []
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
        subprocess.run, command, input=_dumps(_config(run_dir)), capture_output=True, text=True, timeout=60, check=False
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
    first = await start_core(core, _dumps(_config(run_dir)), run_dir)
    await first.terminate(DEADLINE_SECONDS)
    second = await start_core(core, _dumps(_config(run_dir)), run_dir)
    await first.terminate(DEADLINE_SECONDS)
    assert second.is_running()
    assert (run_dir / RECORD_NAME).exists(), "the end of an earlier core leaves the folder of the next alone"
