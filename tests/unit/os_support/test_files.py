"""A file is written whole or not at all, with the mode that was asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest import mock

import pytest

from pgnode.os_support.files import SUFFIX, write_atomically


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
