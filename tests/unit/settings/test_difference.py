"""What is different in settings, and what a running node can take of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.settings import Settings, load
from pgnode.settings.difference import FIXED, NO_DIFFERENCE, OF_THE_CORE, Difference, difference


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return load(state_dir=str(tmp_path))


def test_equal_settings_have_none(running: Settings) -> None:
    found = difference(dict(running), dict(running.model_copy()))
    assert (found, bool(found), found.summary, found.refusal) == (NO_DIFFERENCE, False, "", "")


def test_each_is_told_by_when_it_is_taken(running: Settings, tmp_path: Path) -> None:
    asked = running.model_copy(update={"debug": True, "web_concurrency": 5, "xray_assets_path": tmp_path})
    found = difference(dict(running), dict(asked))
    assert found == Difference(taken=("WEB_CONCURRENCY", "DEBUG"), next_core=("XRAY_ASSETS_PATH",))
    assert found.summary == (
        "taken: WEB_CONCURRENCY, DEBUG; taken by the next core: XRAY_ASSETS_PATH (at once: pgnode restart --core)"
    )
    assert found.refusal == ""


def test_what_cannot_change_refuses_the_rest_as_well(running: Settings) -> None:
    asked = running.model_copy(update={"debug": True, "redis_url": "redis://127.0.0.1", "redis_prefix": "other"})
    found = difference(dict(running), dict(asked))
    assert "REDIS_URL and REDIS_PREFIX cannot change while the node runs, so nothing was changed" in found.refusal


def test_names_are_settings(running: Settings) -> None:
    assert set(FIXED) | set(OF_THE_CORE) <= set(type(running).model_fields)


def test_a_line_holds_it() -> None:
    found = Difference(taken=("DEBUG",), fixed=("REDIS_URL",))
    assert Difference.decode(found.encode()) == found
    for line in ("0.6.0", "", "[]", "{}", '{"taken": 1}'):
        assert Difference.decode(line) == NO_DIFFERENCE
