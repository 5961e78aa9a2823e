"""A core that was left running is taken over if its record is true, and ended otherwise."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pgnode.xray.process.adoption import adopt
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.record import COPY_NAME, RECORD_NAME, read_records
from pgnode.xray.process.run_folder import FIFO_NAME
from pgnode.xray.process.running import RunningCore
from tests.unit.xray.process.conftest import serving


@pytest.fixture
async def left(executable: ExecutableCore, run_dir: Path) -> AsyncIterator[RunningCore]:
    """A core that nobody looks after; here it is our child, so it can be reaped."""
    running = await serving(await executable.spawn("{}", run_dir, config_hash="of-before"))
    yield running
    await running.terminate(10.0)
    running.close()


async def test_it_is_taken_over(left: RunningCore, run_dir: Path) -> None:
    adopted = await adopt(run_dir)
    assert adopted is not None
    assert (adopted.pid, adopted.config_hash, adopted.adopted) == (left.pid, "of-before", True)
    assert adopted.is_running()
    assert await adopted.terminate(10.0) == -signal.SIGTERM, "it is a child still, as after a restart in place"
    assert os.listdir(run_dir) == []
    adopted.close()


@pytest.mark.parametrize("lie", [{"start_ticks": 1}, {"boot_id": "another"}, {"pid": 2**22 + 1}, {"pid": 2**70}, None])
async def test_a_false_record_ends_it(left: RunningCore, run_dir: Path, lie: dict[str, Any] | None) -> None:
    for record in (run_dir / RECORD_NAME, run_dir / COPY_NAME):
        if lie is None:
            record.unlink()
        else:
            record.write_text(json.dumps(json.loads(record.read_text()) | lie))
    assert await adopt(run_dir) is None
    assert os.listdir(run_dir) == []
    assert not left.is_running()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(1000))


def _of_another_boot(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot_id": "another"}))


def _of_another_process(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": os.getppid()}))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


@pytest.mark.parametrize("name", [RECORD_NAME, COPY_NAME])
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, _truncated, _garbage, _of_another_boot, _of_another_process, _folder],
    ids=lambda do: do.__name__,
)
async def test_one_whole_record_is_enough(
    left: RunningCore, run_dir: Path, damage: Callable[[Path], None], name: str
) -> None:
    damage(run_dir / name)
    adopted = await adopt(run_dir)
    assert adopted is not None
    assert (adopted.pid, adopted.config_hash) == (left.pid, "of-before")
    for mended in (RECORD_NAME, COPY_NAME):
        assert read_records(run_dir, mended) == [left.record]
    adopted.close()


async def test_a_record_that_names_a_stranger_harms_nobody(
    left: RunningCore, run_dir: Path, tmp_path: Path, executable: ExecutableCore
) -> None:
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    for name in (RECORD_NAME, COPY_NAME):
        (elsewhere / name).write_text((run_dir / name).read_text())
    os.mkfifo(elsewhere / FIFO_NAME)
    assert await adopt(elsewhere) is None
    assert os.listdir(elsewhere) == []
    assert left.is_running(), "its output does not go to that folder"


async def test_a_folder_that_was_restored_in_place_still_knows_its_core(
    left: RunningCore, run_dir: Path, tmp_path: Path
) -> None:
    """The old core writes to a FIFO that has no name any more; a backup holds the records, and no socket."""
    records = {name: (run_dir / name).read_text() for name in (RECORD_NAME, COPY_NAME)}
    for name in os.listdir(run_dir):
        (run_dir / name).unlink()
    os.mkfifo(run_dir / FIFO_NAME)
    for name, text in records.items():
        (run_dir / name).write_text(text)
    adopted = await adopt(run_dir)
    assert adopted is not None
    assert adopted.pid == left.pid
    adopted.close()


async def test_an_empty_folder(run_dir: Path) -> None:
    assert await adopt(run_dir) is None
    assert await adopt(run_dir / "not there") is None
