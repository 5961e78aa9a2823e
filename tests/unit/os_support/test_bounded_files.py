"""Files that are appended to: bounded, plain, and nothing of what is appended is lost but the oldest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgnode.os_support.bounded_files import KEPT, append, open_plain, shift


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_full_file_is_set_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for number in range(6):
        append(path, b"%d\n" % number * 4, 10)
    assert contents(tmp_path) == {
        "a.log": b"5\n" * 4,
        "a.log.1": b"4\n" * 4,
        "a.log.2": b"3\n" * 4,
        "a.log.3": b"2\n" * 4,
    }
    assert len(contents(tmp_path)) == KEPT + 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_fits_is_appended_and_what_alone_is_too_large_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"x" * 30, 10)
    assert contents(tmp_path) == {"a.log": b"x" * 30}, "an empty file is not set aside"
    append(path, b"y" * 10, 10)
    append(path, b"z", 11)
    assert contents(tmp_path) == {"a.log": b"y" * 10 + b"z", "a.log.1": b"x" * 30}


def test_without_a_bound_it_grows(tmp_path: Path) -> None:
    for _ in range(3):
        append(tmp_path / "a.log", b"x" * 100)
    assert contents(tmp_path) == {"a.log": b"x" * 300}


def test_only_plain_files_are_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "link", "folder", "missing/a.log"):
        with pytest.raises(OSError, match=r"."):
            append(tmp_path / name, b"x", 10)
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="it is no plain file"):
            open_plain(tmp_path / "fifo")
    finally:
        os.close(reader)
    assert contents(tmp_path) == {}


def test_what_cannot_be_set_aside_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"x" * 10, 10)
    (tmp_path / "a.log.2").write_bytes(b"")
    (tmp_path / "a.log.3").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"."):
        append(path, b"y", 10)
    assert len(os.listdir("/proc/self/fd")) == before
    assert contents(tmp_path) == {"a.log": b"x" * 10, "a.log.2": b""}
    (tmp_path / "a.log.3").rmdir()
    shift(path)
    assert contents(tmp_path) == {"a.log.1": b"x" * 10, "a.log.3": b""}
