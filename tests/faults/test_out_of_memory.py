"""The memory of a group runs out, for real: the kernel ends API workers, which come back, and neither supervisor nor core."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.users import make_users
from tests.faults.held import holders
from tests.faults.leftovers import tidy
from tests.faults.load import grpc_pids
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.processes import core_pid, worker_pids

pytestmark = pytest.mark.timeout(300)

TAG = "VLESS"
NOT_YET = (NoAnswerError, OSError, PanelError)
ROOT = Path("/sys/fs/cgroup")
#: Room that the node has left; what it has of the page cache is given up first.
ROOM_BYTES = 16 * 1024**2
MIB_MAX = 2048
#: Takes a MiB for each line that it reads; ends with its input. It has the score of whoever started it, as the core has.
EATER = """
import sys
kept = []
for _ in sys.stdin:
    kept.append(bytearray(b"x") * 2**20)
    print(len(kept), flush=True)
"""


class MemoryGroup:
    """A control group of its own, of either version.

    Args:
        folder: The group.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        old = (folder / "memory.limit_in_bytes").exists()
        self._limit, self._usage, self._events = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control")
            if old
            else ("memory.max", "memory.current", "memory.events")
        )

    def take(self, pid: int) -> None:
        """Put a process into the group; its children will be in it, too."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def allow(self, more_bytes: int) -> None:
        """Limit the group to what it uses, and so much more."""
        used = int((self.folder / self._usage).read_text())
        (self.folder / self._limit).write_text(str(used + more_bytes))

    def unlimited(self) -> None:
        """Take the limit away."""
        with contextlib.suppress(OSError):
            (self.folder / self._limit).write_text("-1" if self._limit.endswith("bytes") else "max")

    @property
    def kills(self) -> int:
        """How many processes of it were ended for want of memory."""
        words = (self.folder / self._events).read_text().split()
        return int(dict(zip(words[::2], words[1::2], strict=True)).get("oom_kill", 0))


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    """A group whose memory can be limited, and this process in it while the node is started."""
    parent = next((folder for folder in (ROOT / "memory", ROOT) if (folder / "cgroup.procs").exists()), None)
    made = parent / f"pgnode-test-{os.getpid()}" if parent is not None else None
    try:
        if made is None or parent is None:
            raise OSError("no control groups")
        made.mkdir()
        found = MemoryGroup(made)
        found.allow(2**40)
    except OSError as error:
        if made is not None and made.is_dir():
            made.rmdir()
        pytest.skip(f"this process may not make a control group with a limit of memory: {error}")
    yield found
    found.unlimited()
    for pid in (made / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            (parent / "cgroup.procs").write_text(pid)
    made.rmdir()


@pytest_asyncio.fixture(loop_scope="session")
async def node(group: MemoryGroup) -> AsyncIterator[NodeProcess]:
    running = NodeProcess(env={"WEB_CONCURRENCY": "2", "GRPC_WORKERS": "1"})
    home = group.folder.parent
    try:
        group.take(os.getpid())
        try:
            await running.spawn()
        finally:
            (home / "cgroup.procs").write_text(str(os.getpid()))
        await running.wait_ready()
        yield running
    finally:
        group.unlimited()
        await running.__aexit__()


@pytest.mark.fault("memory runs out, and the kernel ends whom it chooses")
async def test_memory_runs_out(node: NodeProcess, group: MemoryGroup, trial: Trial) -> None:
    config = make_config([make_inbound(TAG, "vless")])
    async with node.panel() as panel, holders(config, [TAG], 1) as made:
        holder = made.next_user()
        users = [*make_users(5, [TAG]), holder]
        await panel.start(config, users)
        core, workers = core_pid(node), {*worker_pids(node), *grpc_pids(node)}
        async with made.connections(node, holder, trial) as held:
            group.allow(ROOM_BYTES)
            trial.struck()
            eater = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-c", EATER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert eater.stdin is not None
            assert eater.stdout is not None
            try:
                group.take(eater.pid)
                async with asyncio.timeout(60):
                    for _ in range(MIB_MAX):
                        eater.stdin.write(b"\n")
                        await eater.stdout.readline()
                        if group.kills:
                            break
                assert group.kills, "the kernel ended nobody"
                group.unlimited()
            finally:
                eater.stdin.close()
                await eater.wait()

            async def well() -> bool:
                now = {*worker_pids(node), *grpc_pids(node)}
                return len(now) == len(workers) and now != workers and (await panel.info()).started

            await eventually(well, "all workers are there again", 60, errors=NOT_YET)
            trial.well()
            assert node.returncode is None
            assert core_pid(node) == core
            await held.go_on()
        trial.changes(0, len(users))
        await tidy(node, trial)
