"""``pgnode import-env``: printed, written, refused."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from pgnode.cli import main


def invoke(*arguments: Path | str) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["import-env", *map(str, arguments)])
    return found.exit_code, found.output


def go_file(folder: Path) -> Path:
    path = folder / "go.env"
    path.write_text(
        'SERVICE_PORT = 62050\nNODE_HOST = "0.0.0.0"\n# XRAY_ASSETS_PATH = /nowhere\nSERVICE_PROTOCOL = rest\n'
    )
    return path


def test_it_is_printed(tmp_path: Path) -> None:
    code, output = invoke(go_file(tmp_path))
    assert code == 0
    assert output.startswith(
        f"# Settings of pgnode, made from {tmp_path}/go.env.\n\n# SERVICE_PORT: the same\nSERVICE_PORT=62050\n"
    )
    code, output = invoke(go_file(tmp_path), "--json")
    assert (code, json.loads(output)["settings"]["SERVICE_PROTOCOL"]) == (0, "rest")


def test_it_is_written_once_and_for_its_owner(tmp_path: Path) -> None:
    new = tmp_path / "new.env"
    code, output = invoke(go_file(tmp_path), "--write", new)
    assert code == 0
    assert f"{new} is written" in output
    assert new.stat().st_mode & 0o777 == 0o600
    before = new.read_text()
    assert "SERVICE_PROTOCOL=rest" in before
    code, output = invoke(go_file(tmp_path), "--write", new)
    assert (code, output) == (1, f"pgnode: {new} is there already: name another file, or move that one away\n")
    assert new.read_text() == before


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    assert invoke(tmp_path / "none")[0] == 2
    empty = tmp_path / "empty.env"
    empty.write_text("# nothing\n")
    assert invoke(empty)[1].startswith(f"pgnode: {empty} sets nothing")
    code, output = invoke(go_file(tmp_path), "--write", tmp_path / "no" / "folder")
    assert (code, "cannot be written: No such file or directory" in output) == (1, True)
    code, output = invoke(go_file(tmp_path), "--write", "/dev/full/x")
    assert (code, "cannot be written" in output) == (1, True)
