"""The key before the last rotation, as it stands in its file."""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.settings import load
from pgnode.settings.previous_key import PreviousKey, previous_key_file, read_previous_key

KEY = str(uuid.UUID(int=7))
UNTIL = datetime.datetime(2026, 11, 30, 6, 40, tzinfo=datetime.UTC)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    file = previous_key_file(settings)
    assert file == tmp_path / "api_key.previous"
    assert read_previous_key(settings) is None
    file.write_text(PreviousKey(KEY, UNTIL).encode())
    assert file.read_text() == f"{KEY} 2026-11-30T06:40:00Z\n"
    found = read_previous_key(settings)
    assert found == PreviousKey(KEY, UNTIL)
    assert KEY not in repr(found)
    assert read_previous_key(load(state_dir=tmp_path, api_key=KEY)) is None


@pytest.mark.parametrize("text", ["", KEY, f"{KEY} tomorrow", f"{KEY} 2026-11-30T06:40:00", "x 2026-11-30T06:40:00Z"])
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    settings = load(state_dir=tmp_path)
    previous_key_file(settings).write_text(text)
    with pytest.raises(SettingsError, match="does not hold a key and until when"):
        read_previous_key(settings)


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    previous_key_file(settings).mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        read_previous_key(settings)
