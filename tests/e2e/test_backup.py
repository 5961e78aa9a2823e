"""A backup under load becomes a node on another host; and a restore that is killed leaves the old node or the new one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import REST
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually, pause
from tests.support.processes import core_pid, run_to_end, stop
from tests.support.said import said
from tests.support.stored import stored_users

TAG = "VLESS"
MOVER = "user7@demo"
#: The exit code of what SIGKILL ended.
KILLED = -9


async def command(node: NodeProcess, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of an operator's command about a node."""
    program = [sys.executable, "-m", "pgnode", *words]
    return await run_to_end(program, env={**node.environment(), **(env or {})}, timeout_seconds=120)


async def core_has(node: NodeProcess, users: Iterable[pb.User]) -> None:
    """Wait until a node that has just begun has brought its core up with exactly these."""
    emails = {user.email for user in users}

    async def so_it_is() -> bool:
        return set(await inbound_users(node.run_dir / "core.sock", TAG)) == emails

    await eventually(so_it_is, "the core has the stored users", 60, errors=(grpc.aio.AioRpcError,))


class Callers:
    """Change a user each, one change after the other, until told to end."""

    def __init__(self, node: NodeProcess, count: int) -> None:
        self._node = node
        self._end = asyncio.Event()
        #: What was answered last, for each.
        self.answered = [0] * count
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(count)]

    async def _run(self, number: int) -> None:
        async with self._node.panel() as panel:
            while not self._end.is_set():
                await panel.sync_user(make_user(f"caller{number}@e2e", [TAG], key=str(self.answered[number] + 1)))
                self.answered[number] += 1
                await pause()

    async def end(self) -> None:
        self._end.set()
        await asyncio.gather(*self._tasks)


@pytest.fixture
def folder() -> Any:
    made = Path(tempfile.mkdtemp(prefix="pgn"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="session")
async def config() -> AsyncIterator[dict[str, Any]]:
    yield make_config([item for item in plain_inbounds() if item["tag"] == TAG])


async def taken(node: NodeProcess) -> tuple[int, int]:
    """What a read with reset hands out of the mover's traffic."""
    async with node.panel() as panel:
        found = await panel.traffic(MOVER, reset=True)
    return found.uplink_bytes, found.downlink_bytes


async def test_a_node_goes_on_on_another_host(folder: Path, config: dict[str, Any], target: Target) -> None:
    users = make_users(20, [TAG])
    file = folder / "node.pgnode"
    first = NodeProcess(state_dir=folder / "first" / "state", env=REST)
    second = NodeProcess(state_dir=folder / "second" / "state", env=REST, api_key=first.api_key)
    for node in (first, second):
        node.state_dir.parent.mkdir()
    async with ClientCore([link(config["inbounds"][0], make_user(MOVER, [TAG]), name=TAG)], target) as client:
        async with first:
            async with first.panel() as panel:
                await panel.start(config, users, timeout_seconds=60)
            await client.move(TAG, 30_000, 50_000)
            callers = Callers(first, 4)
            await eventually(lambda: min(callers.answered) >= 3, "callers are answered")
            before = list(callers.answered)
            code, output = await command(first, "backup", str(file))
            assert code == 0, output
            assert "users" in output
            await callers.end()
            after = list(callers.answered)
            # What was owed when the backup was made is handed out here, and once.
            handed_out = [await taken(first)]

            async def all_of_it() -> bool:
                handed_out.append(await taken(first))
                sums = [sum(part) for part in zip(*handed_out, strict=True)]
                assert sums <= [30_000, 50_000]
                return sums == [30_000, 50_000]

            await eventually(all_of_it, "what was moved is handed out")
        code, output = await command(second, "restore", str(file))
        assert code == 0, output
        assert file.stat().st_mode & 0o777 == 0o600
        async with second:
            assert second.ca_file.read_bytes() == first.ca_file.read_bytes(), "the panel has pinned it"
            async with second.panel() as panel:

                async def is_up() -> bool:
                    return (await panel.info()).started

                await eventually(is_up, "the restored config runs without a start", timeout_seconds=60)
                in_core = set(await inbound_users(second.run_dir / "core.sock", TAG))
                assert in_core == {user.email for user in users} | {f"caller{number}@e2e" for number in range(4)}
                for number, user in enumerate(
                    stored_users(second).desired[f"caller{number}@e2e"] for number in range(4)
                ):
                    known = [
                        make_user(user.email, [TAG], key=str(key)).proxies.vless.id
                        for key in range(before[number], after[number] + 2)
                    ]
                    assert user.proxies.vless.id in known, "what was answered before the backup is in it"
                # The panel's next set is what holds.
                await panel.sync_users(users)
                assert set(await inbound_users(second.run_dir / "core.sock", TAG)) == {user.email for user in users}
            await client.move(TAG, 1_000, 2_000)
            again: list[tuple[int, int]] = []

            async def new_alone() -> bool:
                again.append(await taken(second))
                sums = [sum(part) for part in zip(*again, strict=True)]
                assert sums <= [1_000, 2_000], "nothing is counted twice"
                return sums == [1_000, 2_000]

            await eventually(new_alone, "what was moved here is handed out")


async def test_what_is_killed_leaves_the_old_node_or_the_new_one(folder: Path, config: dict[str, Any]) -> None:
    faults = ArmedFaults(folder / "fault-points")
    node = NodeProcess(state_dir=folder / "node" / "state", env=REST)
    node.state_dir.parent.mkdir()
    file = folder / "node.pgnode"
    old, new = make_users(3, [TAG]), make_users(6, [TAG])
    async with node, node.panel() as panel:
        await panel.start(config, old, timeout_seconds=60)
        for point in ("backup.copied", "backup.write", "backup.written"):
            faults.arm(point, "kill")
            assert (await command(node, "backup", str(file), env=faults.environment))[0] == KILLED
            assert not file.exists()
        assert (await command(node, "backup", str(file)))[0] == 0
        assert [name for name in os.listdir(folder) if name.startswith(".")] == []
        code, output = await command(node, "restore", str(file))
        assert (code, "stop it, then restore" in output) == (3, True), output
        await panel.sync_users(new)
    for point in ("restore.read", "restore.gathered"):
        faults.arm(point, "kill")
        assert (await command(node, "restore", str(file), env=faults.environment))[0] == KILLED
        assert stored_users(node).desired.keys() == {user.email for user in new}
    # Decided, and the store is neither here nor there: it is the third file, after certificate and its key.
    faults.arm("restore.aside", "kill", skip=2)
    assert (await command(node, "restore", str(file), env=faults.environment))[0] == KILLED
    assert not (node.state_dir / "state.db").exists()
    async with node:
        assert stored_users(node).desired.keys() == {user.email for user in old}
        await said(node, "a restore that had been interrupted was finished")
        await core_has(node, old)
    assert {path.name for path in (node.state_dir / "before-restore").iterdir()} >= {"state.db"}
    assert not (node.state_dir / "restore.ready").exists()


async def test_a_core_that_stands_still_is_no_part_of_what_is_restored(folder: Path, config: dict[str, Any]) -> None:
    node = NodeProcess(
        state_dir=folder / "node" / "state", env={**REST, "CORE_CALL_TIMEOUT_SECONDS": "2", "CORE_HANG_SECONDS": "4"}
    )
    node.state_dir.parent.mkdir()
    file, old = folder / "node.pgnode", make_users(3, [TAG])
    async with node:
        async with node.panel() as panel:
            await panel.start(config, old, timeout_seconds=60)
            assert (await command(node, "backup", str(file)))[0] == 0
            await panel.sync_users(make_users(6, [TAG]))
        core = core_pid(node)
        os.kill(node.pid, signal.SIGKILL)
        await node.wait()
        await stop(core)
        code, output = await command(node, "restore", str(file))
        assert (code, f"a core still runs here (pid {core})" in output) == (0, True), output
        await node.start()
        await said(node, "the core of an earlier run does not answer, it is waited for")
        await said(node, "the node has started")
        # Whoever it was left to need not have reaped it.
        assert not psutil.pid_exists(core) or psutil.Process(core).status() == psutil.STATUS_ZOMBIE
        await core_has(node, old)
        assert core_pid(node) != core
