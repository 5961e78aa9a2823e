"""What a core's folder holds, and what is removed from it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from pathlib import Path
from unittest import mock

import pytest

from pgnode.xray.process import run_folder
from pgnode.xray.process.record import CoreRecord, write_record

RECORD = CoreRecord(1234, 5678, "boot", "hash", "embedded")


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_a_prepared_folder_is_private_and_fresh(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (run_folder.FIFO_NAME, "core.config.json", run_folder.SOCKET_NAME, "foreign"):
        (folder / name).write_text("of before")
    reader = run_folder.prepare(folder)
    try:
        assert names(folder) == {run_folder.FIFO_NAME, "foreign"}
        assert (folder / run_folder.FIFO_NAME).is_fifo()
        assert os.read(reader, 10) == b"", "nobody writes yet, and reading does not block"
    finally:
        os.close(reader)


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    os.close(run_folder.prepare(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
    with pytest.raises(FileNotFoundError):
        run_folder.open_fifo(tmp_path)


def test_only_the_core_of_the_folder_clears_it(tmp_path: Path) -> None:
    os.close(run_folder.prepare(tmp_path))
    write_record(tmp_path, RECORD)
    run_folder.clear(tmp_path, CoreRecord(99, 1, "", "", "embedded"))
    assert "core.json" in names(tmp_path)
    run_folder.clear(tmp_path, RECORD)
    assert names(tmp_path) == set()
    run_folder.clear(tmp_path, RECORD)
    os.close(run_folder.prepare(tmp_path))
    run_folder.clear(tmp_path)
    assert names(tmp_path) == set()
    run_folder.clear(tmp_path / "not there")


def test_who_writes_to_the_fifo(tmp_path: Path) -> None:
    reader = run_folder.prepare(tmp_path)
    writer = os.open(tmp_path / run_folder.FIFO_NAME, os.O_RDWR)
    process = subprocess.Popen(["sleep", "60"], stdout=writer)
    try:
        assert run_folder.writes_to_fifo(process.pid, tmp_path)
        assert not run_folder.writes_to_fifo(os.getpid(), tmp_path)
        assert not run_folder.writes_to_fifo(2**22 + 1, tmp_path)
        assert run_folder.is_core(process.pid, tmp_path)
        assert not run_folder.is_core(os.getpid(), tmp_path)

        # Its name may be removed: the process is known all the same, and its output is found.
        (tmp_path / run_folder.FIFO_NAME).unlink()
        assert run_folder.writes_to_fifo(process.pid, tmp_path)
        assert not run_folder.writes_to_fifo(process.pid, tmp_path.parent)
        os.close(run_folder.open_fifo(tmp_path, process.pid))
        os.mkfifo(tmp_path / run_folder.FIFO_NAME)
        assert run_folder.writes_to_fifo(process.pid, tmp_path), "another one has the name by now"
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def test_a_folder_in_place_of_a_file_is_set_aside(tmp_path: Path) -> None:
    for name in ("core.json", run_folder.SOCKET_NAME):
        (tmp_path / name / "in it").mkdir(parents=True)
    os.close(run_folder.prepare(tmp_path))
    assert names(tmp_path) == {run_folder.FIFO_NAME, "core.json.unusable", f"{run_folder.SOCKET_NAME}.unusable"}
    (tmp_path / "core.json").mkdir()
    run_folder.clear(tmp_path)
    assert "core.json" in names(tmp_path), "what cannot be removed stays, and is no error"


def test_a_fallback_is_private_and_goes_with_the_core(tmp_path: Path) -> None:
    run_dir, parents = tmp_path / "run", [tmp_path / "missing", tmp_path / "a", tmp_path / "b"]
    assert run_folder.fallbacks(run_dir, parents) == ()
    with pytest.raises(FileNotFoundError, match="run is not there"):
        run_folder.make_fallback(run_dir, parents)
    for folder in (run_dir, *parents[1:]):
        folder.mkdir()
    missing, first, second = run_folder.fallbacks(run_dir, parents)
    assert missing.parent == parents[0]

    assert run_folder.make_fallback(run_dir, parents) == first
    assert run_folder.is_private(first)
    os.close(run_folder.prepare(first))
    run_folder.clear(first)
    assert not first.exists()

    # Somebody was there first: a link to elsewhere, or a folder that others may use.
    first.symlink_to(run_dir)
    assert not run_folder.is_private(first)
    assert run_folder.make_fallback(run_dir, parents) == second
    second.chmod(0o755)
    with pytest.raises(PermissionError, match="others may use it"):
        run_folder.make_fallback(run_dir, parents)


def test_a_socket_has_a_place_also_where_the_folder_takes_none(tmp_path: Path) -> None:
    run_dir, parent = tmp_path / "run", tmp_path / "elsewhere"
    run_dir.mkdir()
    parent.mkdir()
    usual = run_dir / "s"
    usual.touch()
    with run_folder.place_for_socket(usual, [parent]) as path:
        assert path == usual
        assert not usual.exists()
    usual.mkdir()
    with run_folder.place_for_socket(usual, [parent]) as path:
        assert path == usual, "it is set aside by whoever makes the socket"
    with (
        mock.patch.object(socket.socket, "bind", side_effect=OSError(errno.EROFS, "Read-only file system")),
        run_folder.place_for_socket(run_dir / "t", [parent]) as path,
    ):
        assert path.parent.parent == parent
        assert run_folder.is_private(path.parent)
    assert os.listdir(parent) == []
    with (
        mock.patch.object(socket.socket, "bind", side_effect=OSError(errno.EROFS, "Read-only file system")),
        pytest.raises(FileNotFoundError),
        run_folder.place_for_socket(run_dir / "t", [tmp_path / "missing"]),
    ):
        pass
