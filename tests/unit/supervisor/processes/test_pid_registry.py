"""What an earlier supervisor left behind is found and ended; nobody else is."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.supervisor.processes import pid_registry
from pgnode.supervisor.processes.pid_registry import PidRegistry, place_of
from pgnode.testing.processes import is_running
from pgnode.xray.process.record import start_ticks


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"]) as child:
        yield child
        child.kill()


async def test_orphans_are_ended(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "children.json"
    earlier = PidRegistry(path)
    earlier.put("web", process.pid)
    assert "web" in repr(earlier)
    copy = path.read_text()
    await PidRegistry(path).end_orphans({process.pid})
    assert is_running(process.pid), "it was left on purpose"
    path.write_text(copy)
    await PidRegistry(path).end_orphans()
    assert not is_running(process.pid)
    assert not path.exists()


async def test_a_pid_that_is_somebody_elses_by_now_is_left_alone(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    path = tmp_path / "children.json"
    noted = {"web": [process.pid, start_ticks(process.pid) - 1], "gone": [2**22 + 1, 1]}
    path.write_text(json.dumps({"place": place_of(tmp_path), "children": noted}))
    await PidRegistry(path).end_orphans()
    assert process.poll() is None


@pytest.mark.parametrize("copied", ["folder", "boot", "container"])
async def test_a_copied_file_names_nobody(tmp_path: Path, process: subprocess.Popen[bytes], copied: str) -> None:
    """The processes that it names are those of the node from which it was copied, or anybody's."""
    path = tmp_path / "children.json"
    PidRegistry(path).put("web", process.pid)
    if copied == "folder":
        path = tmp_path / "copy" / "children.json"
        path.parent.mkdir()
        shutil.copy2(tmp_path / "children.json", path)
    else:
        boot, namespace, _folder = place_of(tmp_path).split()
        path.write_text(path.read_text().replace(boot if copied == "boot" else namespace, "another"))
    await PidRegistry(path).end_orphans()
    assert process.poll() is None
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"web": 1}', "[" * 100_000, '{"children": {}}', '{"children": 1, "place": HERE}'),
        *(
            f'{{"place": HERE, "children": {children}}}'
            for children in (
                *('{"web": 1}', '{"web": ["x", 1]}', '{"web": [1e999, 1]}', '{"web": [1, 1]}', '{"web": [-5, 1]}'),
                *('{"web": [99999999999999999999, 1]}', '{"web": [0, NaN]}'),
            )
        ),
    ],
)
async def test_a_file_that_cannot_be_read_names_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "children.json"
    path.write_text(text.replace("HERE", json.dumps(place_of(tmp_path))))
    await PidRegistry(path).end_orphans()
    assert not path.exists()


def test_children_that_have_ended_are_not_noted(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    registry = PidRegistry(tmp_path / "children.json")
    registry.put("gone", 2**22 + 1)
    registry.put("web", process.pid)
    registry.remove("web")
    registry.remove("web")
    assert json.loads((tmp_path / "children.json").read_text())["children"] == {}


def test_a_disk_that_is_full_ends_nobody(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    registry = PidRegistry(tmp_path / "nowhere" / "children.json")
    registry.put("web", process.pid)
    registry.remove("web")


async def test_whatever_is_in_its_place_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "children.json"
    os.mkfifo(path)
    await PidRegistry(path).end_orphans()
    assert not path.exists()
    path.mkdir()
    await PidRegistry(path).end_orphans()
    assert (tmp_path / "children.json.unusable").is_dir()

    def read_only(_path: Path, **_options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", read_only)
    await PidRegistry(path).end_orphans()


def test_a_process_that_cannot_be_looked_at_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(pid_registry, "start_ticks", full)
    PidRegistry(tmp_path / "children.json").put("web", 2)
    assert not (tmp_path / "children.json").exists()
