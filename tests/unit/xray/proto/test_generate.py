"""The generated modules are those of the checked-in messages."""

from __future__ import annotations

from pathlib import Path

from pgnode.xray.proto import generate


def test_every_message_file_has_its_module(tmp_path: Path) -> None:
    assert generate.main(tmp_path) == 0
    here = Path(generate.__file__).parent
    made = {path.name for path in tmp_path.joinpath("pgnode/xray/proto").iterdir()}
    assert made == {path.name for path in here.iterdir() if "_pb2" in path.name}


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert generate.main(tmp_path / "none") != 0
