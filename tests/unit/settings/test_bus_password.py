"""The password of the node's own Valkey, in a file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pgnode.settings import bus_password, load


def test_a_new_one_is_made_for_this_user_alone(tmp_path: Path) -> None:
    assert bus_password.read(tmp_path) is None
    first = bus_password.make(tmp_path)
    assert first is not None
    assert len(first) == 64
    path = bus_password.path_in(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == f"requirepass {first}\n"
    assert bus_password.read(tmp_path) == first
    assert bus_password.make(tmp_path) not in (None, first)


def test_the_one_that_is_there_stays_where_none_can_be_written(tmp_path: Path) -> None:
    first = bus_password.make(tmp_path)
    (tmp_path / "valkey.conf.new").mkdir()
    assert bus_password.make(tmp_path) == first
    bus_password.path_in(tmp_path).unlink()
    assert bus_password.make(tmp_path) is None
    with pytest.raises(OSError, match=r"valkey\.conf\.new"):
        bus_password.keep(tmp_path, "x")


def test_a_folder_in_its_place_is_set_aside(tmp_path: Path) -> None:
    bus_password.path_in(tmp_path).mkdir()
    assert bus_password.make(tmp_path) is not None
    assert (tmp_path / "valkey.conf.unusable").is_dir()


@pytest.mark.parametrize("content", [b"", b"requirepass", b"requirepass a b", b"port 1", b"\xff", b"requirepass a/b@c"])
def test_what_is_no_password_is_none(tmp_path: Path, content: bytes) -> None:
    bus_password.path_in(tmp_path).write_bytes(content)
    assert bus_password.read(tmp_path) is None


def test_the_address_of_the_bus_has_it(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    assert settings.bus_url == f"unix://{tmp_path}/run/valkey.sock"
    settings.run_dir.mkdir()
    password = bus_password.make(settings.run_dir)
    assert settings.bus_url == f"unix://:{password}@{tmp_path}/run/valkey.sock"
    assert settings.model_copy(update={"redis_url": "redis://r"}).bus_url == "redis://r"
    odd = load(state_dir=tmp_path / "a b@c:d")
    assert odd.bus_url == f"unix://{tmp_path}/a%20b%40c%3Ad/run/valkey.sock"
