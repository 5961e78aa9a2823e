"""The supervisor becomes another one in place: same pid, same core, and nobody notices; what cannot go on restarts itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

import pgnode
from pgnode.errors import TaskFailedError
from pgnode.supervisor.processes.restart_budget import RESTARTS_MAX
from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.processes import command_line, tree
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from tests.e2e.conftest import WITH_GRPC
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually, pause
from tests.support.processes import core_pid, gunicorn_master_pid, of_state_dir, run_to_end, valkey_pid

TAGS = ["VLESS", "Trojan"]
USERS = 20


@dataclass
class Stage:
    node: NodeProcess
    faults: ArmedFaults
    client: ClientCore
    config: dict[str, Any]
    #: The code of the node: a copy that a test may spoil.
    code: Path

    async def restart(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of ``pgnode restart``."""
        return await self.command("restart", *arguments)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of an operator's command."""
        command = [sys.executable, "-m", "pgnode", *arguments]
        return await run_to_end(command, env=self.node.environment(), timeout_seconds=200)

    async def started(self) -> None:
        async with self.node.panel() as panel:
            await panel.start(self.config, make_users(USERS, TAGS), timeout_seconds=60)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.node.pid}/fd"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory, target: Target) -> AsyncIterator[Stage]:
    faults = ArmedFaults(tmp_path_factory.mktemp("fault-points"))
    config = make_config([item for item in plain_inbounds() if item["tag"] in TAGS])
    user = make_user("user7@demo", TAGS)
    links = [link(item, user, name=item["tag"]) for item in config["inbounds"]]
    node = NodeProcess(env={**WITH_GRPC, **faults.environment})
    # A node that works in a folder with a package of its name runs that one.
    code = node.state_dir.parent / "pgnode"
    # With what was compiled of it.
    await asyncio.to_thread(shutil.copytree, Path(pgnode.__file__).parent, code)
    async with node, ClientCore(links, target) as client:
        yield Stage(node, faults, client, config, code)


class Callers:
    """Callers at work, each of which changes a user of its own and reads something."""

    def __init__(self, node: NodeProcess, count: int) -> None:
        self._node = node
        self._end = asyncio.Event()
        self.failures: list[str] = []
        #: What reads with reset handed out of the user's traffic: bytes up and down.
        self.taken = [0, 0]
        self.answered = [0] * count
        self.tasks = [asyncio.create_task(self._run(number)) for number in range(count)]

    async def _run(self, number: int) -> None:
        while not self._end.is_set():
            try:
                async with self._node.panel() as panel:
                    # A connection is used for some calls, as panels do.
                    for _ in range(10):
                        await panel.sync_user(
                            make_user(f"caller{number}@e2e", TAGS, key=str(self.answered[number] + 1))
                        )
                        self.answered[number] += 1
                        if not (await panel.info()).started:
                            self.failures.append("the node says that nothing was started")
                        if number == 0:
                            await self.take(panel)
                        # What this machine computes for callers the node lacks to begin anew.
                        await pause()
            except Exception as error:
                self.failures.append(repr(error))

    async def take(self, panel: PanelClient) -> None:
        found = await panel.traffic("user7@demo", reset=True)
        self.taken = [self.taken[0] + found.uplink_bytes, self.taken[1] + found.downlink_bytes]

    async def progress(self, more: int) -> None:
        goal = [count + more for count in self.answered]
        await eventually(
            lambda: all(count >= wanted for count, wanted in zip(self.answered, goal, strict=True)),
            "callers are answered",
        )

    async def end(self) -> None:
        self._end.set()
        await asyncio.gather(*self.tasks)

    async def __aenter__(self) -> Callers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()


async def test_nobody_notices_a_restart(stage: Stage) -> None:
    node = stage.node
    await stage.started()
    children = [core_pid(node), valkey_pid(node)]
    pid, gunicorn, descriptors = node.pid, gunicorn_master_pid(node), stage.descriptors()
    async with (
        Callers(node, 4) as callers,
        stage.client.hold("VLESS") as first,
        stage.client.hold("Trojan") as second,
    ):
        await callers.progress(3)
        code, output = await stage.restart()
        assert (code, f"restarted in place (pid {pid})" in output) == (0, True), output
        (node.state_dir.parent / ".env").write_text("LOG_BUFFER_SIZE=500\n")
        assert await stage.command("reload") == (0, "settings taken: LOG_BUFFER_SIZE\n")
        assert await stage.command("reload") == (0, "no setting is different; GUNICORN_CONF was read again\n")
        await callers.progress(3)
        await first.wait_rounds(3)
        await second.wait_rounds(3)
    first.check()
    second.check()
    assert callers.failures == []
    assert [core_pid(node), valkey_pid(node)] == children
    assert node.pid == pid
    assert gunicorn_master_pid(node) not in (0, gunicorn), "workers are of the new version"
    async with node.panel() as panel:
        moved = [first.sent_bytes + second.sent_bytes, first.received_bytes + second.received_bytes]

        async def handed_out() -> bool:
            await callers.take(panel)
            assert callers.taken[0] <= moved[0]
            assert callers.taken[1] <= moved[1]
            return callers.taken == moved

        await eventually(handed_out, "every byte is handed out, once")
    expected = {f"caller{number}@e2e" for number in range(4)} | {user.email for user in make_users(USERS, TAGS)}
    assert set(await inbound_users(node.run_dir / "core.sock", "VLESS")) == expected

    def nothing_is_left() -> bool:
        found = tree(pid)[1:]
        masters = [one for one in found if "gunicorn" in command_line(one) and one.ppid() == pid]
        zombies = [one for one in found if one.status() == psutil.STATUS_ZOMBIE]
        return len(masters) == 1 and not zombies and stage.descriptors() <= descriptors + 2

    await eventually(nothing_is_left, "neither a process nor a descriptor of the supervisors before is left")


async def test_a_wrong_setting_changes_nothing(stage: Stage) -> None:
    node = stage.node
    before, settings = [node.pid, gunicorn_master_pid(node)], node.state_dir.parent / ".env"
    for text, code, said in (
        ("LOG_BUFFER_SIZE=some\n", 2, "LOG_BUFFER_SIZE=some in .env is not allowed"),
        ("REDIS_PREFIX=other\nLOG_BUFFER_SIZE=600\n", 2, "REDIS_PREFIX cannot change while the node runs"),
    ):
        settings.write_text(text)
        found = await stage.command("reload")
        assert (found[0], said in found[1]) == (code, True), found
    settings.unlink()
    assert [node.pid, gunicorn_master_pid(node)] == before


async def test_a_version_that_cannot_start_is_refused_and_the_next_one_brings_a_new_core(stage: Stage) -> None:
    node = stage.node
    await stage.started()
    version, before = stage.code / "__init__.py", [node.pid, core_pid(node), gunicorn_master_pid(node)]
    spoilt = stage.code / "supervisor" / "composition.py"
    good = spoilt.read_text()
    spoilt.write_text(good + "\nimport no_such_module\n")
    code, output = await stage.restart()
    assert code == 1
    assert "was not restarted and goes on as it is" in output
    assert "no_such_module" in output
    assert [node.pid, core_pid(node), gunicorn_master_pid(node)] == before
    async with node.panel() as panel:
        assert (await panel.info()).started
    # The next one can.
    spoilt.write_text(good)
    version.write_text(version.read_text().replace(pgnode.__version__, "9.9.9"))
    code, output = await stage.restart("--core")
    assert code == 0, output
    assert "pgnode 9.9.9 runs now" in output
    assert "a new core runs" in output
    assert core_pid(node) not in (0, before[1])
    await stage.client.move("VLESS", 10_000, 10_000)


async def test_what_fails_for_ever_ends_the_supervisor_and_not_the_core(stage: Stage) -> None:
    node = stage.node
    await stage.started()
    core = core_pid(node)

    async def fail_for_ever() -> None:
        while True:
            stage.faults.arm("commands.take", "raise")
            await stage.faults.reached("commands.take", timeout_seconds=120)

    failing = asyncio.create_task(fail_for_ever())
    async with stage.client.hold("VLESS") as held:
        try:
            assert await node.wait(240) == TaskFailedError.exit_code
        finally:
            failing.cancel()
            stage.faults.disarm("commands.take")
        assert node.output_text.count("restarting it in place") == RESTARTS_MAX
        assert [one for one in of_state_dir(node.state_dir) if not one.startswith(f"{core}:")] == []
        await held.wait_rounds(2)
        await node.start()
        assert core_pid(node) == core
        await held.wait_rounds(2)
    held.check()
    async with node.panel() as panel:
        assert (await panel.info()).started
        await panel.sync_user(make_user("later@e2e", TAGS))
