"""A node under a service manager: what it is told, over a restart in place too; a supervisor that hangs costs no connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest_asyncio

from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.processes import tree
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from tests.support.polling import eventually
from tests.support.processes import core_pid, run_to_end, stop

TAG = "VLESS"

#: Seconds that the watchdog gives. A busy machine may need some of them between two beats.
WATCHDOG_SECONDS = 10


@dataclass
class Manager:
    """In place of systemd: takes messages, and notes when the last sign of life came."""

    socket: socket.socket
    messages: list[list[str]] = field(default_factory=list)
    alive_at: float = 0.0

    def take(self) -> None:
        message = self.socket.recv(65536).decode().split("\n")
        self.messages.append(message)
        if "WATCHDOG=1" in message:
            self.alive_at = time.monotonic()

    def told(self, line: str) -> int:
        """How often a line came."""
        return sum(line in message for message in self.messages)

    @property
    def is_overdue(self) -> bool:
        """Whether the watchdog would bite."""
        return time.monotonic() - self.alive_at > WATCHDOG_SECONDS


@dataclass
class Stage:
    node: NodeProcess
    manager: Manager
    client: ClientCore

    async def command(self, *words: str) -> None:
        program = [sys.executable, "-m", "pgnode", *words]
        code, output = await run_to_end(program, env=self.node.environment(), timeout_seconds=200)
        assert code == 0, output


@pytest_asyncio.fixture(loop_scope="session")
async def stage(target: Target) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="pgn") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        path = Path(folder, "notify")
        bound.bind(str(path))
        bound.setblocking(False)
        manager = Manager(bound)
        asyncio.get_running_loop().add_reader(bound, manager.take)
        config = make_config([item for item in plain_inbounds() if item["tag"] == TAG])
        links = [link(config["inbounds"][0], make_user("user7@demo", [TAG]), name=TAG)]
        node = NodeProcess(env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)})
        try:
            async with node, ClientCore(links, target) as client:
                async with node.panel() as panel:
                    await panel.start(config, make_users(20, [TAG]), timeout_seconds=60)
                yield Stage(node, manager, client)
        finally:
            asyncio.get_running_loop().remove_reader(bound)


async def test_what_the_service_manager_is_told_and_what_its_watchdog_does(stage: Stage) -> None:
    node, manager = stage.node, stage.manager
    await eventually(lambda: manager.told("READY=1") == 1, "it is ready")
    first = next(message for message in manager.messages if "READY=1" in message)
    after = manager.messages[manager.messages.index(first) + 1]
    assert "STATUS=idle, 0 users" in after, "at once"
    assert manager.told(f"MAINPID={node.pid}") == 1
    assert any(message[0].startswith(("WATCHDOG", "EXTEND")) for message in manager.messages[:1]), "from the beginning"
    await eventually(lambda: manager.told("STATUS=running, 20 users"), "it says how it is")
    for process in tree(node.pid)[1:]:
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & process.environ().keys(), process.cmdline()

    await stage.command("reload")
    await eventually(lambda: manager.told("READY=1") == 2, "the reload has ended")
    assert manager.told("RELOADING=1") == 1
    pid, core = node.pid, core_pid(node)
    await stage.command("restart")
    await eventually(lambda: manager.told("READY=1") == 3, "the next one is ready")
    assert (manager.told("RELOADING=1"), manager.told(f"MAINPID={pid}")) == (2, 3)
    async with stage.client.hold(TAG) as held:
        # What `systemctl kill -s USR2` does where nobody says --kill-whom=main, and HUP the same.
        for number, count in ((signal.SIGUSR2, 4), (signal.SIGHUP, 5), (signal.SIGUSR1, 5)):
            children = {process.pid for process in tree(pid)[1:]}
            for one in (pid, *children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, number)
            await eventually(lambda count=count: manager.told("READY=1") == count, "that was done")  # type: ignore[misc]
            await held.wait_rounds(2)
        assert core_pid(node) == core
        async with node.panel() as panel:
            assert (await panel.info()).started
    held.check()
    beats = manager.told("WATCHDOG=1")
    await eventually(lambda: manager.told("WATCHDOG=1") > beats, "the next one gives signs of life")
    assert not manager.is_overdue

    async with stage.client.hold(TAG) as held:
        await stop(pid)
        await eventually(lambda: manager.is_overdue, "the watchdog bites", timeout_seconds=60)
        await held.wait_rounds(2)
        # KillMode=process and WatchdogSignal=SIGKILL: this process alone, at once.
        os.kill(pid, signal.SIGKILL)
        await node.wait(60)
        await node.start()
        await eventually(lambda: manager.told("READY=1") == 6, "the next one is ready")
        assert core_pid(node) == core
        assert psutil.pid_exists(core)
        await held.wait_rounds(2)
    held.check()
    assert manager.told("STOPPING=1") == 0
    node.send_signal(signal.SIGTERM)
    await node.wait(60)
    await eventually(lambda: manager.told("STOPPING=1") == 1, "it says that it ends")
    assert manager.told("STATUS=ending") == 1
