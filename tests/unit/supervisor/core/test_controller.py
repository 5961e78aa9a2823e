"""The core as a process: started, adopted, stopped, and every way in which a start fails. With real cores where one is needed."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pgnode.bus.keys import Keys
from pgnode.errors import StartFailedError
from pgnode.os_support import fault_points, oom_score
from pgnode.os_support.held_sockets import HeldSockets
from pgnode.settings import Settings
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.core.log_pump import LogPump
from pgnode.supervisor.core.log_sender import Counted, LogSender
from pgnode.supervisor.core.log_writer import LogWriter
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.fake_core import FakeRunningCore
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.users import SS2022_METHOD, ss2022_key
from pgnode.xray.config.document import BaseConfig, parse_config, render
from pgnode.xray.process import run_folder
from pgnode.xray.process.embedded import EmbeddedCore
from tests.support.polling import eventually

#: Any that the test's own process has not.
OOM_SCORE_ADJ = 321


@pytest.fixture
def folder() -> Iterator[Path]:
    """A path short enough for unix sockets."""
    made = Path(tempfile.mkdtemp(prefix="pgn"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def settings(folder: Path) -> Settings:
    made = Settings(
        state_dir=folder, generated_config_path=folder / "copy" / "config.json", core_start_timeout_seconds=20
    )
    made.run_dir.mkdir(parents=True, exist_ok=True)
    return made


def controller_for(settings: Settings, core: Any = None, **options: Any) -> CoreController:
    ring = LogRing(10)
    sender = LogSender(cast(Any, None), Keys("t:"), ring, Counted("one"))
    pump = LogPump(ring, sender, LogWriter(0), tail_lines=10)
    return CoreController(settings, core if core is not None else EmbeddedCore(), pump, **options)


@pytest.fixture
async def controller(settings: Settings) -> AsyncIterator[CoreController]:
    made = controller_for(settings, oom_score_adj=OOM_SCORE_ADJ)
    yield made
    await made.stop()


def base_for(settings: Settings, **sections: Any) -> BaseConfig:
    inbounds = [
        make_inbound("VLESS", "vless"),
        make_inbound("SS", "shadowsocks", method=SS2022_METHOD, password=ss2022_key(b"server")),
    ]
    config = json.dumps({**make_config(inbounds), **sections})
    return parse_config(config, exclude_inbounds=(), api_socket=str(settings.core_socket), assets_dir=None)


async def test_a_core_is_started_adopted_and_stopped(controller: CoreController, settings: Settings) -> None:
    base = base_for(settings)
    assert (controller.run_id, controller.api, controller.running) == ("", None, None)

    config = render(base, {})

    async def make() -> str:
        return config

    running = await controller.start(base, make)
    assert controller.running is running
    assert controller.api is not None
    assert await controller.api.users.inbound_users("SS", 5.0) == [], "the placeholder is removed again"
    assert controller.initial_stats.NumGoroutine > 0
    assert controller.matches(running)
    assert oom_score.read_score(running.pid) == OOM_SCORE_ADJ
    assert settings.generated_config_path is not None
    assert settings.generated_config_path.read_text() == config
    assert await controller.version()
    assert controller.known_version

    await controller.keep(lambda: b"what it runs")

    # A supervisor that is killed leaves it, and the next one finds it.
    other = controller_for(settings)
    adopted = await other.adopt()
    assert adopted is not None
    assert other.run_id == controller.run_id != ""
    assert await other.kept() == b"what it runs"
    await other.give_up_process()
    await asyncio.wait_for(running.wait(), 10)
    await other.stop()
    await other.give_up_process()
    assert (other.run_id, other.api) == ("", None)
    await other.keep(lambda: b"no core")
    assert await other.kept() == b""


async def test_a_folder_that_takes_no_files_has_a_fallback(settings: Settings, folder: Path) -> None:
    """The record, the FIFO, the socket: all of them are in a folder that a later supervisor finds."""
    parents = [folder / "elsewhere"]
    parents[0].mkdir()
    controller = controller_for(settings, fallback_parents=parents)
    base = base_for(settings)
    config = render(base, {})

    async def make() -> str:
        return config

    faults = ArmedFaults(folder / "fault-points")
    fault_points.use_folder(faults.folder)
    try:
        faults.arm("core.record", "raise ENOSPC")
        running = await controller.start(base, make)
    finally:
        fault_points.use_folder(None)
    assert running.run_dir.parent == parents[0]
    assert running.config_hash == base.base_hash
    assert controller.initial_stats.NumGoroutine > 0

    # Another core where it usually is does not take its place, and is ended.
    other = controller_for(settings, fallback_parents=parents)
    adopted = await other.adopt()
    assert adopted is not None
    assert (adopted.pid, adopted.run_dir) == (running.pid, running.run_dir)
    await other.stop()
    assert not parents[0].joinpath(running.run_dir.name).exists(), "the fallback goes with the core"
    await controller.stop()


async def test_where_no_folder_takes_files_a_sentence_says_so(settings: Settings, folder: Path) -> None:
    controller = controller_for(settings, fallback_parents=[folder / "missing"])
    settings.run_dir.rmdir()
    settings.run_dir.touch()
    base = base_for(settings)

    async def make() -> str:
        return render(base, {})

    with pytest.raises(
        StartFailedError, match=r"run takes no files \(File exists\), and no other folder does .*make room"
    ):
        await controller.start(base, make)
    settings.run_dir.unlink()
    settings.run_dir.mkdir()


async def test_a_second_core_in_a_fallback_is_ended(settings: Settings, folder: Path) -> None:
    parents = [folder / "elsewhere"]
    parents[0].mkdir()
    base = base_for(settings)

    async def make() -> str:
        return render(base, {})

    controller = controller_for(settings, fallback_parents=parents)
    running = await controller.start(base, make)
    second = await EmbeddedCore().spawn(
        '{"outbounds": [{"protocol": "freedom"}]}', run_folder.make_fallback(settings.run_dir, parents)
    )
    mark = str(second.log_path)
    await eventually(lambda: str(Path(f"/proc/{second.pid}/fd/1").readlink()) == mark, "it runs", errors=(OSError,))
    adopted = await controller_for(settings, fallback_parents=parents).adopt()
    assert adopted is not None
    assert adopted.pid == running.pid
    assert not second.is_running()
    second.close()
    await controller.stop()


async def test_a_core_whose_api_is_not_to_be_found_is_ended_soon(settings: Settings, folder: Path) -> None:
    """Where its folder was replaced, say; one that stands still has CORE_HANG_SECONDS."""
    hasty = settings.model_copy(update={"core_call_timeout_seconds": 0.5, "core_hang_seconds": 3600.0})
    controller, base = controller_for(hasty), base_for(hasty)

    async def make() -> str:
        return render(base, {})

    running = await controller.start(base, make)
    (hasty.run_dir / run_folder.SOCKET_NAME).unlink()
    assert await controller_for(hasty).adopt() is None
    assert not running.is_running()
    await controller.stop()


async def test_there_may_be_no_core_to_adopt(controller: CoreController) -> None:
    assert await controller.adopt() is None


async def test_a_config_is_judged_before_anything_runs(controller: CoreController, settings: Settings) -> None:
    good, bad = base_for(settings), base_for(settings, dns={"servers": 5})
    await controller.check(good)
    assert await controller.refusal(good) == ""
    assert await controller.refusal(bad)
    with pytest.raises(StartFailedError, match="dns"):
        await controller.check(bad)


async def test_what_is_refused_only_at_the_start_is_named(controller: CoreController, settings: Settings) -> None:
    hysteria = make_inbound("Fast", "hysteria", stream={"network": "hysteria", "hysteriaSettings": {"version": 2}})
    base = base_for(settings, inbounds=[make_inbound("VLESS", "vless"), hysteria])
    with pytest.raises(StartFailedError, match=r"^inbound 'Fast' \(hysteria\): Hysteria needs TLS"):
        await controller.check(base)

    async def make() -> str:
        return render(base, {})

    with pytest.raises(StartFailedError, match=r"^inbound 'Fast' \(hysteria\): Hysteria needs TLS"):
        await controller.start(base, make)
    assert controller.running is None


async def test_a_stale_socket_is_no_obstacle(controller: CoreController, settings: Settings, folder: Path) -> None:
    path = folder / "in.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
    base = base_for(settings, inbounds=[make_inbound("VLESS", "vless") | {"listen": str(path)}])

    async def make() -> str:
        return render(base, {})

    running = await controller.start(base, make)
    assert HeldSockets(running.pid).serves_path(str(path))


async def test_a_port_that_another_core_has_is_not_shared(controller: CoreController, settings: Settings) -> None:
    """The core would bind beside it without an error, and each of the two would get some of the connections."""
    base = base_for(settings)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", base.claims[0].listener.port))
        other.listen()
        with pytest.raises(StartFailedError, match=r"^inbound 'VLESS': port .* is in use$"):
            await controller.start(base, rendered_of(base))
        assert controller.running is None
    assert (await controller.start(base, rendered_of(base))).is_running()


def rendered_of(base: BaseConfig) -> Callable[[], Awaitable[str]]:
    async def make() -> str:
        return render(base, {})

    return make


async def test_a_runner_that_is_not_needed_is_ended(controller: CoreController) -> None:
    controller.warm_up()
    controller.warm_up()
    await controller.discard_runner()
    await controller.discard_runner()


class OddCore:
    """Starts something that never answers, or ends at once."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        self.checked = 0

    def __str__(self) -> str:
        return "odd core"

    @property
    def cert_dir(self) -> Path:
        return Path("/")

    def warm_up(self, _assets: Path | None) -> None:
        return None

    async def spawn(self, *_arguments: object, **_options: object) -> Any:
        running = FakeRunningCore(1, "hash")

        async def terminate(_seconds: float) -> None:
            running.die()

        running.terminate = terminate  # type: ignore[assignment,method-assign]
        running.close = lambda: None  # type: ignore[method-assign]
        running.log_fd, self._end = _pipe()
        if self.exit_code is not None:
            running.die(self.exit_code)
        return running

    async def rehearse(self, _config: str, _seconds: float) -> tuple[bool, int, str]:
        self.checked += 1
        return True, 0, ""


def _pipe() -> tuple[int, int]:
    import os

    return os.pipe2(os.O_NONBLOCK)


async def test_a_core_that_does_not_come_up_leaves_none(settings: Settings) -> None:
    base = base_for(settings)

    async def make() -> str:
        return "{}"

    for core, text in (
        (OddCore(1), "exit code 1 while starting: it printed nothing"),
        (OddCore(None), "did not answer|does not answer"),
    ):
        quick = settings.model_copy(update={"core_start_timeout_seconds": 0.2})
        controller = controller_for(quick, core)
        with pytest.raises(StartFailedError, match=text):
            await controller.start(base, make)
        assert controller.running is None


async def test_a_core_that_refuses_its_config_is_asked_for_the_reason(settings: Settings) -> None:
    base, core = base_for(settings), OddCore(23)

    async def make() -> str:
        return "{}"

    controller = controller_for(settings, core)
    with pytest.raises(StartFailedError, match="exit code 23"):
        await controller.start(base, make)
    assert core.checked == 1


async def test_a_config_that_cannot_be_made_ends_the_process_that_waits_for_it(
    controller: CoreController, settings: Settings
) -> None:
    async def fault() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await controller.start(base_for(settings), fault)
    assert controller.running is None


async def test_what_goes_by_the_config_follows_a_change_of_the_running_core(settings: Settings, folder: Path) -> None:
    base = base_for(settings)

    async def make() -> str:
        return "the config"

    await controller_for(settings).follow(base, make)
    assert settings.generated_config_path is not None
    assert settings.generated_config_path.read_text() == "the config"
    none = settings.model_copy(update={"generated_config_path": None})
    await controller_for(none).follow(base, make)


async def test_another_core_is_selected_for_the_next_start(controller: CoreController) -> None:
    core = OddCore(None)
    controller.select(cast(Any, core))
    assert controller.core is cast(Any, core)
    assert not controller.matches(FakeRunningCore(1, "hash", core="another"))
    assert controller.matches(FakeRunningCore(1, "hash", core="odd core"))
