"""A supervisor runs with what was checked before it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.os_support import streams
from pgnode.os_support.lean_start import CHECKED_VARIABLE
from pgnode.settings import Settings, load
from pgnode.settings.handover import Checked, hand_on
from pgnode.supervisor import checked_start


@pytest.fixture(autouse=True)
def safe(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The streams of this process are the test's."""
    made: list[str] = []
    monkeypatch.setattr(streams, "make_safe", lambda: made.append("safe"))
    return made


def test_the_supervisor_gets_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safe: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, Path | None]] = []

    def run(settings: Settings, env_file: Path | None) -> int:
        seen.append((settings.web_concurrency, env_file))
        return 3

    monkeypatch.setattr(checked_start, "run", run)
    checked = Checked(load(state_dir=tmp_path, web_concurrency=7), tmp_path / "a.env", ["first \x1b", "second"])
    monkeypatch.setenv(CHECKED_VARIABLE, str(hand_on(checked)))
    assert checked_start.main() == 3
    assert seen == [(7, tmp_path / "a.env")]
    assert safe == ["safe"]
    assert CHECKED_VARIABLE not in os.environ
    assert capsys.readouterr().err == "pgnode: first \\x1b\npgnode: second\n"


def test_an_error_is_printed_and_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise SettingsError("no room")

    monkeypatch.setattr(checked_start, "run", fail)
    monkeypatch.setenv(CHECKED_VARIABLE, str(hand_on(Checked(load(state_dir=tmp_path), None, []))))
    assert checked_start.main() == SettingsError.exit_code
    assert capsys.readouterr().err == "pgnode: no room\n"


def test_a_variable_that_somebody_else_has_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CHECKED_VARIABLE, "nonsense")
    assert checked_start.main() == SettingsError.exit_code
    assert "unset it" in capsys.readouterr().err
