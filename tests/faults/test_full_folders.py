"""The folder of log files, or that of sockets and records, is on a disk of its own without room: the rest of the node goes on."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, TransferError, link
from pgnode.testing.users import make_user, make_users
from tests.faults.checker import Record, check, state_of
from tests.faults.held import holders
from tests.faults.leftovers import TidyNode, core_anywhere, tidy
from tests.faults.test_disk_faults import NOT_YET, SmallDisk, gunicorn_comes_back, may_mount
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.processes import kill, valkey_pid

pytestmark = pytest.mark.timeout(300)

TAG = "VLESS"
#: Such a disk, small enough to be filled up at once.
OPTIONS = "size=2m,nr_inodes=200"


@pytest.fixture
def above() -> Iterator[Path]:
    """The folder of the state folder and the log folder."""
    if not may_mount():
        pytest.skip(
            "this process may not mount a file system (CAP_SYS_ADMIN), and without one no disk can be filled up"
        )
    made = Path(tempfile.mkdtemp(prefix="pgn"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def disk(above: Path, what: str) -> Iterator[SmallDisk]:
    """The disk of that folder alone."""
    folder = above / {"log": "logs", "run": "state/run"}[what]
    folder.mkdir(parents=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{OPTIONS},mode=700", "pgnode-test", str(folder)], check=True)
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest_asyncio.fixture(loop_scope="session")
async def node(above: Path, disk: SmallDisk) -> AsyncIterator[NodeProcess]:
    env = {"GRPC_WORKERS": "1", "LOG_DIR": str(above / "logs")}
    async with TidyNode(state_dir=above / "state", env=env) as running:
        yield running


@pytest.mark.fault(
    "no bytes left on the disk of the {what} folder alone, and Gunicorn, a worker, Valkey, the core killed"
)
@pytest.mark.parametrize("what", ["log", "run"])
async def test_a_folder_without_room(node: NodeProcess, disk: SmallDisk, above: Path, what: str, trial: Trial) -> None:
    config: dict[str, Any] = make_config([make_inbound(TAG, "vless")])
    config["log"] = {"access": "access.log", "loglevel": "info"}
    user, access = make_user("user1@demo", [TAG]), above / "logs" / "access.log"
    async with (
        node.panel() as panel,
        Target() as target,
        holders(config, [TAG], 1) as made,
        ClientCore([link(config["inbounds"][0], user, name=TAG)], target) as client,
    ):
        holder, record = made.next_user(), Record(panel)
        held = made.connections(node, holder, trial)
        users = [*make_users(5, [TAG]), holder]
        await panel.start(config, users)
        record.initial = {one.email: state_of(one) for one in users}
        core = core_anywhere(node)
        async with held:
            await client.move(TAG, 1000, 1000)
            await eventually(lambda: access.exists() and b"user1@demo" in access.read_bytes(), "lines are written")
            trial.struck()
            disk.fill()
            # The store has room, so changes are taken.
            assert await record.one(make_user("while@demo", [TAG]))
            await client.move(TAG, 1000, 1000)

            async def lines_are_dropped() -> bool:
                # A page of the file may have room left.
                await client.move(TAG, 1000, 1000)
                return "log file not written, its lines are dropped" in node.output_text

            if what == "log":
                await eventually(lines_are_dropped, "it is said that lines are dropped", 60)
            await gunicorn_comes_back(node, panel)
            bus = valkey_pid(node)
            kill(bus)

            async def taken() -> bool:
                return valkey_pid(node) not in (0, bus) and await record.one(make_user("still@demo", [TAG]))

            await eventually(taken, "the bus is back", 60, errors=NOT_YET)
            await held.go_on()

        kill(core)

        def another_core() -> bool:
            return core_anywhere(node) not in (0, core)

        await eventually(another_core, "the core is back while the disk is full", 60)

        async def moved() -> bool:
            # Its process is there before it listens.
            await client.move(TAG, 10_000, 20_000)
            return True

        await eventually(moved, "the core moves bytes while the disk is full", 60, errors=(TransferError,))
        disk.empty()

        assert await record.one(make_user("after@demo", [TAG]))
        before = len(access.read_bytes())

        async def written_again() -> bool:
            await client.move(TAG, 1000, 1000)
            return len(access.read_bytes()) > before

        await eventually(written_again, "lines are written again", 60)
        await check(node, record, [TAG], trial)
    trial.well()
    await tidy(node, trial)
