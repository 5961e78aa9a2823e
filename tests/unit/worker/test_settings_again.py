"""Settings at a reload of Gunicorn without a supervisor: taken where they are allowed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.settings.alone import load_alone
from pgnode.settings.handover import (
    ALONE_VARIABLE,
    ENVIRONMENT_VARIABLE,
    FILE_VARIABLE,
    VARIABLE,
    hand_over,
    hand_over_environment,
)
from pgnode.worker.settings_again import SettingsAgain


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file of settings that a worker was started with."""
    file = tmp_path / "worker.env"
    file.write_text("WEB_CONCURRENCY=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://192.0.2.1/0")
    folder = Path(tempfile.gettempdir())
    handed, described = hand_over(load_alone("rest", file), folder), hand_over_environment(dict(os.environ), folder)
    monkeypatch.setenv(VARIABLE, str(handed.descriptor))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(described))
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    monkeypatch.setenv(ALONE_VARIABLE, "rest")
    yield file
    os.close(handed.descriptor)
    os.close(described)


def test_the_first_time_they_are_those_that_were_handed_over(file: Path) -> None:
    told: list[str] = []
    again = SettingsAgain()
    file.write_text("WEB_CONCURRENCY=3\n")
    assert again.load(told.append).web_concurrency == 1
    assert again.load(told.append).web_concurrency == 3
    file.write_text("WEB_CONCURRENCY=x\n")
    assert again.load(told.append).web_concurrency == 3
    [sentence] = told
    assert sentence.startswith("settings not taken, those before stay in force: ")
    assert "WEB_CONCURRENCY=x is not allowed" in sentence
    assert repr(again) == "SettingsAgain(read)"


def test_beside_a_supervisor_they_are_its(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALONE_VARIABLE)
    again = SettingsAgain()
    file.write_text("WEB_CONCURRENCY=3\n")
    assert [again.load(lambda _: None).web_concurrency for _ in range(2)] == [1, 1]


def test_what_cannot_be_read_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    again = SettingsAgain()
    again.load(told.append)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert again.load(told.append).web_concurrency == 1
    assert "/nonexistent/python" in told[0]
