"""What is written about a running core: read again, or told of where that cannot be."""

from __future__ import annotations

from pathlib import Path

from pgnode.supervisor.core import kept_files
from pgnode.xray.process.run_folder import SPEC_NAME


async def test_what_a_core_runs_is_kept_beside_it(tmp_path: Path) -> None:
    assert await kept_files.kept(tmp_path) == b""
    await kept_files.keep(tmp_path, lambda: b"what it runs")
    assert await kept_files.kept(tmp_path) == b"what it runs"
    (tmp_path / f"{SPEC_NAME}.new").mkdir()
    await kept_files.keep(tmp_path, lambda: b"cannot be written, which ends nothing")
    assert await kept_files.kept(tmp_path) == b"what it runs"


async def test_a_copy_of_the_config_is_for_this_user_alone(tmp_path: Path) -> None:
    await kept_files.write_copy(None, "nobody wants it")
    path = tmp_path / "new" / "folder" / "copy.json"
    await kept_files.write_copy(path, "{}")
    assert path.read_text() == "{}"
    assert path.stat().st_mode & 0o777 == 0o600
    await kept_files.write_copy(tmp_path / "new", "in a folder")
    assert (tmp_path / "new" / "config.json").read_text() == "in a folder"
    await kept_files.write_copy(Path("/proc/none/config.json"), "a place that cannot be written stops nothing")
