"""The log files that a config names."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.core.log_writer import LogWriter
from tests.support.polling import eventually

ACCESS, ERROR = b"2026/01/01 10:00:00 from 1.2.3.4 accepted", b"2026/01/01 10:00:00 [Warning] something"


async def test_files_that_the_config_names_are_written(tmp_path: Path) -> None:
    writer = LogWriter(0, batch_seconds=0.01)
    running = asyncio.create_task(writer.run())
    writer.put(ACCESS)
    writer.name_files(str(tmp_path / "logs" / "access.log"), str(tmp_path / "error.log"))
    assert repr(writer) == f"LogWriter({tmp_path}/logs/access.log, {tmp_path}/error.log)"
    writer.put(ACCESS + b"\n" + ERROR)
    await eventually((tmp_path / "error.log").exists, "the file is there")
    assert (tmp_path / "logs" / "access.log").read_bytes() == ACCESS + b"\n", (
        "those from before it was named are in none"
    )
    assert (tmp_path / "error.log").read_bytes() == ERROR + b"\n"
    writer.name_files(str(tmp_path / "both.log"), str(tmp_path / "both.log"))
    writer.put(ACCESS + b"\n" + ERROR + b"\n" + ACCESS)
    await eventually((tmp_path / "both.log").exists, "the file is there")
    assert (tmp_path / "both.log").read_bytes().splitlines() == [ACCESS, ERROR, ACCESS], "in their order"
    await end_tasks([running])


async def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    writer, path = LogWriter(0), tmp_path / "folder" / "access.log"
    writer.name_files(str(path), None)
    with structlog.testing.capture_logs() as logged:
        (tmp_path / "folder").touch()
        for _ in range(3):
            writer.put(ACCESS)
            await writer.pass_on()
        (tmp_path / "folder").unlink()
        writer.put(ACCESS + b"\n" + ERROR)
        await writer.pass_on()
    assert path.read_bytes() == ACCESS + b"\n"
    assert [(entry["log_level"], entry.get("dropped")) for entry in logged] == [("warning", None), ("info", 3)]
    with structlog.testing.capture_logs() as logged:
        path.unlink()
        path.mkdir()
        writer.put(ACCESS)
        await writer.pass_on()
        writer.name_files(str(tmp_path / "other.log"), None)
        writer.name_files(str(path), None)
        writer.put(ACCESS)
        await writer.pass_on()
    assert [entry["log_level"] for entry in logged] == ["warning"] * 2, "one that is named anew is told anew"


async def test_a_disk_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    writer = LogWriter(0, waiting_bytes=100)
    writer.name_files(str(tmp_path / "access.log"), None)
    with structlog.testing.capture_logs() as logged:
        for _ in range(5):
            writer.put(ACCESS)
        await writer.pass_on()
        writer.put(ACCESS)
        await writer.pass_on()
    assert (tmp_path / "access.log").read_bytes() == (ACCESS + b"\n") * 3
    assert [(entry["log_level"], entry.get("dropped")) for entry in logged] == [("warning", None), ("info", 3)]
    assert "the disk does not take them in time" in logged[0]["error"]


async def test_files_stay_below_their_bound_and_three_full_ones_are_kept(tmp_path: Path) -> None:
    writer = LogWriter(100)
    writer.name_files(None, str(tmp_path / "error.log"))
    lines = [b"2026/01/01 10:00:00 [Warning] %d" % number for number in range(50)]
    for at in range(0, 50, 5):
        # A batch may be larger than a file.
        writer.put(b"\n".join(lines[at : at + 5]))
        await writer.pass_on()
    found = {name: (tmp_path / name).stat().st_size for name in os.listdir(tmp_path)}
    assert set(found) == {"error.log", "error.log.1", "error.log.2", "error.log.3"}
    assert max(found.values()) <= 100
    kept = [line for name in sorted(found, reverse=True) for line in (tmp_path / name).read_bytes().splitlines()]
    assert kept == lines[-len(kept) :], "the last ones, none is missing"


async def test_much_is_written_at_once(tmp_path: Path) -> None:
    writer = LogWriter(0, batch_seconds=600)
    running = asyncio.create_task(writer.run())
    writer.name_files(str(tmp_path / "access.log"), None)
    block = b"\n".join([ACCESS] * 1000)
    for _ in range(30):
        writer.put(block)
    whole: Callable[[int], bool] = functools.partial(_has_size, tmp_path / "access.log")
    await eventually(lambda: whole(len(block + b"\n") * 30), "it does not wait")
    await end_tasks([running])


def _has_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size
