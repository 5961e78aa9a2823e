"""A file is written whole or not at all, with the mode that was asked for."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from unittest import mock

import pytest

from pgnode.os_support.files import SUFFIX, kind_of, overwrite, read_json, read_regular, set_aside, write_atomically


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("durable", [True, False])
def test_text_and_bytes_replace_what_was_there(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "grüße", durable=durable)
    assert path.read_text(encoding="utf-8") == "grüße"
    write_atomically(path, b"\x00\xff", durable=durable)
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["file.json"]


def test_the_mode_is_that_of_the_call_whatever_a_leftover_or_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "file"
    leftover = tmp_path / f"file{SUFFIX}"
    leftover.write_text("of a crash, and longer than what comes")
    leftover.chmod(0o666)
    write_atomically(path, "secret")
    assert (path.read_text(), mode_of(path)) == ("secret", 0o600)
    before = os.umask(0o077)
    try:
        write_atomically(path, "public", mode=0o644)
    finally:
        os.umask(before)
    assert mode_of(path) == 0o644


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with mock.patch("os.fsync", side_effect=OSError(28, "no space")), pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_what_is_not_durable_waits_for_no_disk(tmp_path: Path) -> None:
    with mock.patch("os.fsync") as sync:
        write_atomically(tmp_path / "file", "x", durable=False)
        assert sync.call_count == 0
        write_atomically(tmp_path / "file", "x")
        assert sync.call_count == 2, "the content, and its name"


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / f"file{SUFFIX}").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        write_atomically(tmp_path / "file", "x")
    assert victim.read_text() == "untouched"


def test_a_full_disk_keeps_no_half_written_file(tmp_path: Path) -> None:
    full = OSError(28, "no space")
    with mock.patch("os.fsync", side_effect=full), pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == []


def test_a_fifo_in_the_place_of_the_temporary_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"file{SUFFIX}")
    with pytest.raises(OSError, match=f"file{SUFFIX}"):
        write_atomically(tmp_path / "file", "x")


def test_a_file_is_overwritten_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        overwrite(path, b"x")
    path.write_bytes(b"longer")
    inode = path.stat().st_ino
    overwrite(path, b"new")
    assert path.read_bytes() == b"new   "
    assert path.stat().st_ino == inode
    with pytest.raises(OSError, match="No space"):
        overwrite(path, b"much longer")
    with mock.patch("os.pwrite", return_value=2), pytest.raises(OSError, match="not written to its end"):
        overwrite(path, b"new")


def test_only_a_regular_file_of_a_sane_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(path, 4)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 5)
    os.mkfifo(tmp_path / "fifo")
    for odd in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match="no regular file"):
            read_regular(odd, 5)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b""])
def test_what_is_no_json_is_an_error_of_one_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - of any text
        read_json(path, 1_000_000)
    path.write_bytes(b'{"a": 1}')
    assert read_json(path, 1_000_000) == {"a": 1}


def test_what_is_set_aside_does_not_replace_what_was(tmp_path: Path) -> None:
    for number, name in enumerate(("file.unusable", "file.unusable.2", "file.unusable.3")):
        (tmp_path / "file").mkdir()
        (tmp_path / "file" / str(number)).touch()
        assert set_aside(tmp_path / "file") == tmp_path / name
    assert len(os.listdir(tmp_path)) == 3


def test_what_is_at_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "link").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    found = {name: kind_of(tmp_path / name) for name in ("none", "file", "dangling", "circle", "link", "fifo", "s")}
    assert found == {
        "none": "",
        "file": "a file",
        "dangling": "a link that leads nowhere",
        "circle": "a link that leads in a circle",
        "link": "a folder",
        "fifo": "a FIFO",
        "s": "a socket",
    }
    assert kind_of(Path(os.devnull)) == "a device"
    with pytest.raises(NotADirectoryError):
        kind_of(tmp_path / "file" / "below")
