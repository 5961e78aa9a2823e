"""A supervisor runs with what was checked before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.settings import Settings, load
from pgnode.settings.handover import Checked
from pgnode.supervisor import checked_start


def test_the_supervisor_gets_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, Path | None]] = []

    def run(settings: Settings, env_file: Path | None) -> int:
        seen.append((settings.web_concurrency, env_file))
        return 3

    monkeypatch.setattr(checked_start, "run", run)
    checked = Checked(load(state_dir=tmp_path, web_concurrency=7), tmp_path / "a.env", ["first \x1b", "second"])
    assert checked_start.main(checked) == 3
    assert seen == [(7, tmp_path / "a.env")]
    assert capsys.readouterr().err == "pgnode: first \\x1b\npgnode: second\n"


def test_an_error_is_printed_and_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise SettingsError("no room")

    monkeypatch.setattr(checked_start, "run", fail)
    assert checked_start.main(Checked(load(state_dir=tmp_path), None, [])) == SettingsError.exit_code
    assert capsys.readouterr().err == "pgnode: no room\n"
