"""The core as a process: start, check, end, and what is left behind, for both kinds of core."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import select
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pgnode.errors import StartFailedError
from pgnode.os_support.request_signals import REQUESTS
from pgnode.testing.ports import free_port
from pgnode.xray.client.api import CoreApi
from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.reach_messages import REACH_NAME
from pgnode.xray.process.record import COPY_NAME, RECORD_NAME
from pgnode.xray.process.run_folder import FIFO_NAME
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore, handles_sigterm
from tests.integration.xray.plain_core import names, plain_config, text_of
from tests.support.polling import eventually
from tests.support.processes import stop

SAMPLES = Path(__file__).parents[2] / "samples"


def _held(pid: int) -> list[str]:
    """What the descriptors of a process lead to."""
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


async def test_what_asks_a_supervisor_for_something_ends_no_core(
    core: Core, run_dir: Path, start_core: StartCore
) -> None:
    running = await start_core(core, json.dumps(plain_config(run_dir)), run_dir)
    for number in REQUESTS:
        os.kill(running.pid, number)
    async with CoreApi(running.socket_path) as api:
        assert (await api.stats.sys_stats(DEADLINE_SECONDS)).NumGoroutine > 0


# --- version and check


async def test_version_is_the_cores_own(core: Core) -> None:
    version = await core.version(DEADLINE_SECONDS)
    assert re.fullmatch(r"\d{2}\.\d+\.\d+", version)
    assert await core.version(0.0) == version, "the second answer is remembered: nobody is asked again"


async def test_check_accepts_and_binds_nothing(core: Core, run_dir: Path) -> None:
    port = free_port()
    config = plain_config(run_dir, port)
    abstract = {"listen": f"@{run_dir.name}", "protocol": "vless", "settings": {"clients": [], "decryption": "none"}}
    config["inbounds"].append(abstract)
    await core.check(json.dumps(config), DEADLINE_SECONDS)
    assert names(run_dir) == [], "not even the API's socket"


@pytest.mark.parametrize("name", ["wide.json", "panel-default.json", "balancer.json"])
async def test_check_accepts_the_samples(core: Core, name: str) -> None:
    text = (SAMPLES / name).read_text().replace('"geoip:private"', '"10.0.0.0/8"')
    config = json.loads(text)
    config["inbounds"] = [item for item in config["inbounds"] if item["tag"] != "API_INBOUND"]
    # The node's config rewriting takes the files out: opening them is part of what the core checks.
    config["log"] = {"loglevel": "warning"}
    await core.check(json.dumps(config), DEADLINE_SECONDS)


async def test_check_beside_a_running_core_with_the_same_config(
    core: Core, run_dir: Path, start_core: StartCore
) -> None:
    config = json.dumps(plain_config(run_dir))
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
    config = json.dumps(plain_config(run_dir) | change)
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
        await core.check(json.dumps(plain_config(run_dir)), 0.001)


async def test_an_executable_that_is_none(run_dir: Path) -> None:
    missing = ExecutableCore(run_dir / "xray")
    with pytest.raises(StartFailedError, match="cannot be run: No such file"):
        await missing.version(DEADLINE_SECONDS)
    with pytest.raises(StartFailedError, match="cannot be run: No such file"):
        await missing.spawn(json.dumps(plain_config(run_dir)), run_dir)
    assert names(run_dir) == []
    with pytest.raises(StartFailedError, match="is no Xray"):
        await ExecutableCore("/bin/false").version(DEADLINE_SECONDS)


# --- life of a core


async def test_start_and_end(core: Core, run_dir: Path) -> None:
    before = time.time()
    running = await core.spawn(json.dumps(plain_config(run_dir)), run_dir)
    try:
        async with CoreApi(running.socket_path) as api:
            await api.wait_ready(DEADLINE_SECONDS)
        assert running.is_running()
        assert -2 < running.up_seconds < time.time() - before + 2
        process = psutil.Process(running.pid)
        assert os.getsid(running.pid) == running.pid, "a terminal's Ctrl-C must not reach it"
        assert process.cwd() == "/"
        reach = [REACH_NAME] if core.kind == "embedded" else []
        assert names(run_dir) == [COPY_NAME, RECORD_NAME, FIFO_NAME, "core.sock", "core.sock.lock", *reach], (
            "the config does not stay"
        )
        assert all((run_dir / name).stat().st_mode & 0o077 == 0 for name in names(run_dir))
        await eventually(lambda: handles_sigterm(running.pid), "the core's signal handler")
        assert await running.terminate(DEADLINE_SECONDS) == 0
        assert not running.is_running()
        assert names(run_dir) == []
        assert not psutil.pid_exists(running.pid), "reaped"
    finally:
        running.send_signal(signal.SIGKILL)
        running.close()


async def test_wait_tells_the_exit_code(core: Core, run_dir: Path) -> None:
    running = await core.spawn(json.dumps(plain_config(run_dir) | {"outbounds": [{"protocol": "nonsense"}]}), run_dir)
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
        running = await core.spawn(json.dumps(plain_config(run_dir, taken.getsockname()[1])), run_dir)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await running.wait() == 255
        finally:
            await running.terminate(1)
            running.close()


async def test_a_killed_core_is_noticed(core: Core, run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(core, json.dumps(plain_config(run_dir)), run_dir)
    waiting = asyncio.create_task(running.wait())
    os.kill(running.pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await waiting == -signal.SIGKILL


async def test_a_core_that_does_not_listen_is_killed(core: Core, run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(core, json.dumps(plain_config(run_dir)), run_dir)
    await stop(running.pid)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await running.terminate(0.2) == -signal.SIGKILL


async def test_no_descriptor_of_ours_reaches_the_core(core: Core, run_dir: Path, start_core: StartCore) -> None:
    lock = os.open(run_dir, os.O_RDONLY)
    os.set_inheritable(lock, True)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        running = await start_core(core, json.dumps(plain_config(run_dir)), run_dir)
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
    running = await start_core(EmbeddedCore(), json.dumps(plain_config(run_dir)), run_dir)
    maps = text_of(f"/proc/{running.pid}/maps")
    assert "xray" in maps
    assert "cygrpc" not in maps, "what this program imports does not burden the runner"


# --- output


async def test_output_goes_to_the_fifo(core: Core, run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(core, json.dumps(plain_config(run_dir)), run_dir)
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
    config = plain_config(run_dir, loglevel="debug")
    port = config["inbounds"][0]["port"]
    running = await start_core(core, json.dumps(config), run_dir)
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
