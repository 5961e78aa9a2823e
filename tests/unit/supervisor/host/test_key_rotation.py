"""A new key: both are valid, or one, and never none."""

from __future__ import annotations

import datetime
import fcntl
import os
import stat
import uuid
from pathlib import Path

import pytest

from pgnode.errors import OperatorError
from pgnode.os_support import files
from pgnode.settings import Settings, load, read_api_key
from pgnode.settings.previous_key import PreviousKey, previous_key_file, read_previous_key
from pgnode.supervisor.host import key_rotation
from pgnode.supervisor.host.key_rotation import forget_previous_key, rotate_key

OLD = str(uuid.UUID(int=1))
NOW = datetime.datetime(2026, 11, 29, 6, 40, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
NOTHING = datetime.timedelta()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load(state_dir=tmp_path, api_key=None, api_key_file=None)
    files.write_atomically(made.key_file, OLD)
    return made


def test_the_old_key_stays_for_a_time(settings: Settings) -> None:
    new, previous = rotate_key(settings, DAY, NOW)
    assert new == read_api_key(settings) != OLD
    assert previous == read_previous_key(settings) == PreviousKey(OLD, NOW + DAY)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (settings.key_file, previous_key_file(settings))] == [
        0o600
    ] * 2
    assert sorted(os.listdir(settings.state_dir)) == ["api_key", "api_key.previous"]
    assert forget_previous_key(settings)
    assert not forget_previous_key(settings)
    assert read_previous_key(settings) is None
    assert read_api_key(settings) == new


def test_or_ends_at_once_and_so_does_the_one_before(settings: Settings) -> None:
    rotate_key(settings, DAY, NOW)
    new, previous = rotate_key(settings, NOTHING, NOW)
    assert previous is None
    assert read_previous_key(settings) is None
    assert read_api_key(settings) == new


def test_a_failure_between_the_two_files_leaves_the_old_key_valid(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *rest: object, **options: object) -> None:
        if path == settings.key_file:
            raise OSError(28, "No space left on device")
        files.write_atomically(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(key_rotation, "write_atomically", full)
    with pytest.raises(OperatorError, match="No space left on device; the key that there was is valid as before"):
        rotate_key(settings, DAY, NOW)
    assert read_api_key(settings) == OLD


def test_rights_and_owner_stay_as_they_were(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.key_file.chmod(0o640)
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _file, user, group: asked.append((user, group, 0)))
    rotate_key(settings, DAY, NOW)
    assert asked == [(os.getuid(), settings.key_file.stat().st_gid, 0)] * 2
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o640


def test_two_at_once_are_one_too_many(settings: Settings) -> None:
    folder = os.open(settings.state_dir, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(OperatorError, match="somebody else is changing"):
            rotate_key(settings, DAY, NOW)
    finally:
        os.close(folder)
    assert read_api_key(settings) == OLD


def test_what_cannot_be_removed_or_found_is_told(settings: Settings) -> None:
    previous_key_file(settings).mkdir()
    with pytest.raises(OperatorError, match="cannot be removed"):
        forget_previous_key(settings)
    elsewhere = settings.model_copy(update={"api_key_file": settings.state_dir / "none" / "key"})
    with pytest.raises(OperatorError, match="cannot be opened"):
        forget_previous_key(elsewhere)
