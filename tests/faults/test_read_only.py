"""The file system of the state folder turns read-only under open files, as one does whose disk reports an error.

It stays so until somebody has mended it: users' connections go on, whatever is killed comes back, and no change is lost that
was answered before.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.processes import is_running
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from tests.faults.held import holders
from tests.faults.leftovers import TidyNode, core_anywhere, tidy
from tests.faults.test_disk_faults import gunicorn_comes_back, may_mount
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.processes import kill
from tests.support.stored import stored_users

pytestmark = pytest.mark.timeout(300)

TAG = "VLESS"
NOT_YET = (NoAnswerError, OSError, PanelError)
IMAGE_BYTES = 32 * 1024 * 1024


class FailingDisk:
    """An ext4 in a file, which turns read-only when its disk reports an error, as those of most systems do.

    Args:
        folder: Where it is mounted; the images are beside it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._image = folder.with_name("first.img")
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", self._image)
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", self._image, self.folder)

    def fail(self) -> None:
        """Let the kernel find an error; all that was written by now is on the disk."""
        _run("sync", "-f", self.folder)
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
        device = next(words[0] for words in mounts if words[1] == str(self.folder))
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("of the test", encoding="ascii")

    def replace(self) -> None:
        """Put a disk with the same files in its place, as an operator does."""
        copy = self._image.with_name("second.img")
        shutil.copyfile(self._image, copy)
        subprocess.run(["e2fsck", "-fy", str(copy)], check=False, capture_output=True)
        self.unmount()
        self._image = copy
        self._mount()

    def unmount(self) -> None:
        _run("umount", "-l", self.folder)


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    if not may_mount():
        pytest.skip("this process may not mount a file system (CAP_SYS_ADMIN), so none can turn read-only")
    if not Path("/sys/fs/ext4").exists() or not Path("/dev/loop-control").exists() or not shutil.which("e2fsck"):
        pytest.skip(
            "no ext4 can be made in a file (e2fsprogs, loop devices): no other file system turns read-only here"
        )
    above = Path(tempfile.mkdtemp(prefix="pgn"))
    (above / "disk").mkdir()
    made = FailingDisk(above / "disk")
    try:
        yield made
    finally:
        made.unmount()
        shutil.rmtree(above)


@pytest_asyncio.fixture(loop_scope="session")
async def node(disk: FailingDisk) -> AsyncIterator[NodeProcess]:
    async with TidyNode(state_dir=disk.folder / "state", env={"GRPC_WORKERS": "1"}) as running:
        yield running


@pytest.mark.fault(
    "file system of the state folder turned read-only under open files; Gunicorn, a worker, the core, the supervisor killed"
)
async def test_a_disk_that_became_read_only(node: NodeProcess, disk: FailingDisk, trial: Trial) -> None:
    config = make_config([make_inbound(TAG, "vless")])
    user = make_user("user1@demo", [TAG])
    async with node.panel() as panel, Target() as target, holders(config, [TAG], 1) as made:
        holder = made.next_user()
        held = made.connections(node, holder, trial)
        users = [*make_users(5, [TAG]), holder]
        await panel.start(config, users)
        core = core_anywhere(node)
        async with held:
            await asyncio.to_thread(disk.fail)
            trial.struck()

            # Changes are refused with what is wrong and what to do; what is only asked is answered.
            with pytest.raises(PanelError, match="not stored: ") as caught:
                await panel.sync_user(make_user("refused@demo", [TAG]))
            assert caught.value.status == 503
            assert "see the kernel's log and the disk of STATE_DIR" in caught.value.text
            other = make_config([make_inbound(TAG, "vless"), make_inbound("other", "trojan")])
            with pytest.raises(PanelError, match="not stored: ") as caught:
                await panel.start(other, users)
            assert caught.value.status == 503
            assert "what runs goes on unchanged" in caught.value.text
            assert core_anywhere(node) == core
            await panel.backend_stats()
            assert (await panel.info()).started
            await held.go_on()

            # Whatever is killed comes back.
            await gunicorn_comes_back(node, panel)
            await held.go_on()

        kill(core)

        async def back() -> bool:
            return core_anywhere(node) not in (0, core) and (await panel.info()).started

        await eventually(back, "the core is back", 60, errors=NOT_YET)
        async with ClientCore([link(config["inbounds"][0], user, name=TAG)], target) as client:
            await client.move(TAG, 10_000, 20_000)
    last = core_anywhere(node)

    # No supervisor can begin there: it says why, and the core goes on.
    kill(node.pid)
    await node.wait()
    await node.spawn()
    assert await node.wait() == 2
    assert "cannot be used: Read-only file system" in node.output_text
    assert "Traceback" not in node.output_text
    assert is_running(last)

    # Another disk is in its place: everything goes on, with the same core.
    await asyncio.to_thread(disk.replace)
    await node.start()
    assert core_anywhere(node) == last
    kept = stored_users(node).desired
    lost = [one.email for one in users if one.email not in kept]
    trial.changes(len(lost), len(users))
    assert lost == []
    async with node.panel() as panel:
        await panel.sync_user(make_user("after@demo", [TAG]))
    assert "after@demo" in stored_users(node).desired
    trial.well()
    await tidy(node, trial)
