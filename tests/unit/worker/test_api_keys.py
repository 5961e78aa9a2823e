"""The keys of a worker, which are as the files say."""

from __future__ import annotations

import datetime
import os
import uuid
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pgnode.api.auth import CURRENT, PREVIOUS
from pgnode.errors import SettingsError
from pgnode.settings import Settings, load
from pgnode.settings.handover import ALONE_VARIABLE
from pgnode.settings.previous_key import PreviousKey, previous_key_file
from pgnode.worker.api_keys import WARN_SECONDS, KeyFollower
from tests.support.polling import eventually

OLD, NEW = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
NOW = 1_800_000_000.0


class Hand:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load(state_dir=tmp_path, api_key=None, api_key_file=None)
    replace(made.key_file, OLD)
    return made


def replace(path: Path, text: str) -> None:
    """Replace a file by a new one, as a rotation does."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


def rotate(settings: Settings, seconds: float) -> None:
    until = datetime.datetime.fromtimestamp(NOW + seconds, datetime.UTC)
    replace(previous_key_file(settings), PreviousKey(OLD, until).encode())
    replace(settings.key_file, NEW)


def found(follower: KeyFollower) -> list[str]:
    """What the old and the new key are."""
    return [follower.keys.find({b"x-api-key": key.encode()}) for key in (OLD, NEW)]


def test_a_rotation_is_followed_and_the_old_key_ends(settings: Settings) -> None:
    clock = Hand()
    follower = KeyFollower(settings, now=clock)
    assert found(follower) == [CURRENT, ""]
    assert follower.look() is None
    rotate(settings, 60)
    follower.take(follower.look())
    assert found(follower) == [PREVIOUS, CURRENT]
    assert found(KeyFollower(settings, now=clock)) == [PREVIOUS, CURRENT]
    clock.now += 59
    follower.take(follower.look())
    assert found(follower) == [PREVIOUS, CURRENT]
    clock.now += 1
    follower.take(follower.look())
    assert found(follower) == ["", CURRENT]
    assert found(KeyFollower(settings, now=clock)) == ["", CURRENT]
    assert OLD not in repr(follower)


def test_what_cannot_be_used_changes_nothing_and_is_told_once(settings: Settings) -> None:
    follower = KeyFollower(settings)
    replace(settings.key_file, "nonsense")
    with capture_logs() as logs:
        follower.take(follower.look())
        follower.take(follower.look())
    assert [line["log_level"] for line in logs] == ["warning"]
    assert found(follower) == [CURRENT, ""]
    settings.key_file.unlink()
    follower.take(follower.look())
    assert found(follower) == [CURRENT, ""]
    replace(settings.key_file, NEW)
    follower.take(follower.look())
    assert found(follower) == ["", CURRENT]


def test_the_previous_key_may_be_unusable_at_the_start_but_not_the_key(settings: Settings) -> None:
    previous_key_file(settings).write_text("nonsense")
    with capture_logs() as logs:
        assert found(KeyFollower(settings)) == [CURRENT, ""]
    assert "does not hold a key" in logs[0]["error"]
    settings.key_file.unlink()
    with pytest.raises(SettingsError, match="no API key"):
        KeyFollower(settings)


def test_use_of_the_previous_key_is_told_once_an_hour(settings: Settings) -> None:
    clock = Hand()
    rotate(settings, 3 * WARN_SECONDS)
    follower = KeyFollower(settings, now=clock)
    with capture_logs() as logs:
        found(follower)
        found(follower)
        clock.now += WARN_SECONDS - 1
        found(follower)
        assert len(logs) == 1
        clock.now += 1
        found(follower)
    assert len(logs) == 2
    assert "still uses the previous API key" in logs[0]["event"]
    assert OLD not in str(logs)


async def test_the_files_are_looked_at_while_it_runs(settings: Settings) -> None:
    follower = KeyFollower(settings, now=Hand(), check_seconds=0.01)
    follower.start()
    try:
        rotate(settings, 60)
        await eventually(lambda: found(follower) == [PREVIOUS, CURRENT], "the rotation is seen")
    finally:
        await follower.close()


async def test_a_key_of_the_settings_is_not_followed(settings: Settings) -> None:
    fixed = settings.model_copy(update={"api_key": NEW})
    follower = KeyFollower(fixed)
    follower.start()
    await follower.close()
    assert found(follower) == ["", CURRENT]
    assert os.listdir(settings.state_dir) == ["api_key"]


async def test_one_on_its_own_without_a_key_waits_for_what_it_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not KeyFollower(settings).is_told
    settings.key_file.unlink()
    monkeypatch.setenv(ALONE_VARIABLE, "rest")
    follower = KeyFollower(settings)
    follower.start()
    assert follower.is_told
    assert found(follower) == ["", ""]
    await follower.close()
