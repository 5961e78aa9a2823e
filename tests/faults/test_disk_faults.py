"""The disk of the state folder fails, for real: users' connections go on, and so does the node when there is room again."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.processes import is_running, tree
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from tests.faults.held import holders
from tests.faults.leftovers import TidyNode, core_anywhere, ended_tidily, tidy
from tests.faults.table import LOSSES
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.processes import gunicorn_master_pid, kill, worker_pids
from tests.support.stored import stored_users

pytestmark = pytest.mark.timeout(300)

TAG = "VLESS"
NOT_YET = (NoAnswerError, OSError, PanelError)
#: Room for the state of a small node, and inodes for its files.
OPTIONS = "size=8m,nr_inodes=200"


class SmallDisk:
    """A tmpfs of its own for the state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filled: list[Path] = []

    def fill(self) -> None:
        """Leave no room for a byte."""
        path = self.folder / "filled"
        self._filled.append(path)
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def take_inodes(self) -> None:
        """Leave no room for a file."""
        try:
            while True:
                path = self.folder / f"inode{len(self._filled)}"
                path.touch()
                self._filled.append(path)
        except OSError:
            pass

    def empty(self) -> None:
        """Make room again."""
        while self._filled:
            self._filled.pop().unlink(missing_ok=True)


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN: root has it, but not in most containers."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> 21 & 1)


async def gunicorn_comes_back(node: NodeProcess, panel: PanelClient) -> None:
    """Kill Gunicorn's master and a worker, and wait until others serve."""
    master, worker = gunicorn_master_pid(node), worker_pids(node)[0]
    kill(worker)
    kill(master)

    async def serves() -> bool:
        return gunicorn_master_pid(node) not in (0, master) and (await panel.info()).started

    await eventually(serves, "Gunicorn is back", 60, errors=NOT_YET)


@pytest.fixture
def disk() -> Any:
    if not may_mount():
        pytest.skip(
            "this process may not mount a file system (CAP_SYS_ADMIN), and without one no disk can be filled up"
        )
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", OPTIONS, "pgnode-test", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@pytest_asyncio.fixture(loop_scope="session")
async def node(disk: SmallDisk) -> AsyncIterator[NodeProcess]:
    async with TidyNode(state_dir=disk.folder / "state", env={"GRPC_WORKERS": "1"}) as running:
        yield running


@pytest.mark.fault(
    "no {what} left on the disk of the state folder, and Gunicorn, a worker, the core, the supervisor killed"
)
@pytest.mark.parametrize("what", ["bytes", "inodes"])
async def test_a_disk_without_room(node: NodeProcess, disk: SmallDisk, what: str, trial: Trial) -> None:
    config = make_config([make_inbound(TAG, "vless")])
    user = make_user("user1@demo", [TAG])
    async with node.panel() as panel, Target() as target, holders(config, [TAG], 1) as made:
        holder = made.next_user()
        held = made.connections(node, holder, trial)
        users = [*make_users(5, [TAG]), holder]
        await panel.start(config, users)
        core = core_anywhere(node)
        async with held:
            trial.struck()
            disk.fill() if what == "bytes" else disk.take_inodes()

            # A start with another config is refused, and ends nothing.
            if what == "bytes":
                other = make_config([make_inbound(TAG, "vless"), make_inbound("other", "trojan")])
                with pytest.raises(PanelError, match=r"not stored: no room on the disk .*make room") as caught:
                    await panel.start(other, users)
                assert caught.value.status == 503
                assert core_anywhere(node) == core
            else:
                # What needs no new core makes none, although there is no place for a socket.
                await panel.start({**config, "inbounds": [*config["inbounds"], make_inbound("more", "trojan")]}, users)
                assert core_anywhere(node) == core
            await panel.backend_stats()
            await held.go_on()

            # Whatever is killed comes back.
            await gunicorn_comes_back(node, panel)
            await held.go_on()

        kill(core)

        async def back() -> bool:
            return core_anywhere(node) not in (0, core) and (await panel.info()).started

        await eventually(back, "the core is back while the disk is full", 60, errors=NOT_YET)
        async with ClientCore([link(config["inbounds"][0], user, name=TAG)], target) as client:
            await client.move(TAG, 10_000, 20_000)

        disk.empty()

        async def stored() -> bool:
            await panel.sync_user(make_user("after@demo", [TAG]))
            return "after@demo" in stored_users(node).desired

        await eventually(stored, "there is room again, and everything goes on", 60, errors=NOT_YET)
        trial.well()
    last = core_anywhere(node)

    # The next supervisor finds the core wherever it is, and takes it over.
    kill(node.pid)
    await node.wait()
    assert is_running(last)
    await node.start()
    assert psutil.pid_exists(last)
    kept = stored_users(node).desired
    lost = [user.email for user in [*users, make_user("after@demo", [TAG])] if user.email not in kept]
    trial.changes(len(lost), len(users) + 1)
    assert lost == []
    async with Target() as target, ClientCore([link(config["inbounds"][0], user, name=TAG)], target) as client:
        await client.move(TAG, 1000, 1000)
    assert is_running(last)
    await tidy(node, trial)


@pytest.mark.fault(
    "node told to end while its disk is full",
    unmeasured=dict.fromkeys(LOSSES, "the node ends with everything it has, and does so as told"),
)
async def test_sigterm_ends_everything_on_a_full_disk(node: NodeProcess, disk: SmallDisk, trial: Trial) -> None:
    async with node.panel() as panel:
        await panel.start(make_config([make_inbound(TAG, "vless")]), make_users(5, [TAG]))
    processes = tree(node.pid)
    disk.fill()
    trial.struck()
    assert await node.stop() == 0
    trial.well()
    await ended_tidily(node, trial)
    assert not [process.pid for process in processes if process.is_running() and is_running(process.pid)]
