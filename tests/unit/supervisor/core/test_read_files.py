"""Files that the core has read, and whether they are still the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pgnode.supervisor.core.read_files import ReadFiles, Stamp, stamp
from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.config.document import BaseConfig, parse_config
from pgnode.xray.process.run_folder import FILES_NAME


@pytest.fixture
def base(tmp_path: Path) -> BaseConfig:
    (tmp_path / "cert.pem").write_text("one")
    certificates = [{"certificateFile": str(tmp_path / "cert.pem"), "keyFile": str(tmp_path / "none.pem")}]
    stream = {"security": "tls", "tlsSettings": {"certificates": certificates}}
    text = json.dumps(make_config([make_inbound("a", "vless", stream=stream)]))
    return parse_config(text, exclude_inbounds=(), api_socket="/x.sock", assets_dir=None)


async def test_a_file_counts_as_changed_with_its_content(tmp_path: Path, base: BaseConfig) -> None:
    path, files = tmp_path / "cert.pem", ReadFiles(tmp_path, None)
    assert await files.changed(base) == {}, "nothing is known of what the core read"
    await files.note(base)
    assert await files.changed(base) == {}
    os.utime(path, ns=(1, 1))
    assert await files.changed(base) == {}, "touched, and the same"
    path.write_text("two")
    assert await files.changed(base) == {path: {("a", True)}}
    (tmp_path / "none.pem").write_text("it comes into being")
    assert set(await files.changed(base)) == {path, tmp_path / "none.pem"}
    await files.note(base)
    assert await files.changed(base) == {}
    path.unlink()
    assert set(await files.changed(base)) == {path}


async def test_the_next_supervisor_knows_what_was_read(tmp_path: Path, base: BaseConfig) -> None:
    first, second = ReadFiles(tmp_path, None), ReadFiles(tmp_path, None)
    await first.note(base)
    await first.save()
    (tmp_path / "cert.pem").write_text("two")
    await second.recall(base)
    assert set(await second.changed(base)) == {tmp_path / "cert.pem"}


@pytest.mark.parametrize("content", [None, "", "[]", '{"a": 5}', '{"a": {"x": 1}}', "\udcff"])
async def test_what_was_noted_may_be_lost(tmp_path: Path, base: BaseConfig, content: str | None) -> None:
    if content is not None:
        (tmp_path / FILES_NAME).write_bytes(content.encode(errors="surrogateescape"))
    files = ReadFiles(tmp_path, None)
    await files.recall(base)
    assert await files.changed(base) == {}
    assert "ReadFiles" in repr(files)


async def test_a_folder_that_cannot_be_written_is_no_obstacle(base: BaseConfig) -> None:
    files = ReadFiles(Path("/proc/none"), None)
    await files.note(base)
    await files.save()


def test_an_unchanged_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    found = path.stat()
    known = Stamp(1, found.st_mtime_ns, "not its digest", found.st_ino, found.st_ctime_ns)
    assert stamp(path, known) is known
    assert stamp(tmp_path, None) == Stamp()


def test_a_link_to_another_file_of_the_same_size_and_time_is_another_file(tmp_path: Path) -> None:
    link = tmp_path / "live"
    for name in ("cert1", "cert2"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(5, 5))
    link.symlink_to("cert1")
    known = stamp(link)
    link.unlink()
    link.symlink_to("cert2")
    assert stamp(link, known).digest != known.digest
    # Known without inode and times, by an earlier version: it is read again.
    assert stamp(link, Stamp(5, 5, known.digest)).digest != known.digest


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert [stamp(path) for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/a\0b"))] == [Stamp()] * 3


async def test_a_relative_certificate_is_looked_for_where_the_core_does(tmp_path: Path) -> None:
    stream = {"security": "tls", "tlsSettings": {"certificates": [{"certificateFile": "c.pem"}]}}
    text = json.dumps(make_config([make_inbound("a", "vless", stream=stream)]))
    base = parse_config(text, exclude_inbounds=(), api_socket="/x.sock", assets_dir=None)
    files = ReadFiles(tmp_path, None, lambda: tmp_path)
    (tmp_path / "c.pem").write_text("one")
    await files.note(base)
    (tmp_path / "c.pem").write_text("two")
    assert await files.changed(base) == {tmp_path / "c.pem": {("a", True)}}
