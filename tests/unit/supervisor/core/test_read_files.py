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
    known = Stamp(1, path.stat().st_mtime_ns, "not its digest")
    assert stamp(path, known) is known
    assert stamp(tmp_path, None) == Stamp()
