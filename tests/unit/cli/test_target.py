"""Which node a command is about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.cli import target as target_module
from pgnode.cli.target import Named, Places, Target, find_target, find_with_settings, require_access
from pgnode.errors import OperatorError, SettingsError
from pgnode.settings import load
from pgnode.supervisor.host import identity
from pgnode.supervisor.host.running_nodes import RunningNode


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A machine on which nothing is set, and no service is there."""
    for name in ("STATE_DIR", "SERVICE_PORT", "API_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Places(tmp_path / "pgnode.env", tmp_path / "etc", tmp_path / "lib")


def nobody() -> list[RunningNode]:
    return []


@pytest.fixture
def usual(tmp_path: Path) -> Iterator[None]:
    """The node of this user's own folder runs: this process holds its lock."""
    settings = load()
    identity.prepare_state_dir(settings)
    with identity.lock_state_dir(settings):
        yield


def test_nobody_is_named_and_nothing_runs(places: Places, tmp_path: Path) -> None:
    found = find_target(Named(), places, nobody)
    assert (found.settings.state_dir, found.pid, found.why) == (tmp_path / "home" / "pgnode", None, "")


def test_this_users_node_is_the_first(places: Places, usual: None) -> None:
    def others() -> list[RunningNode]:
        raise AssertionError("nobody looks for others")

    assert find_target(Named(), places, others).pid == os.getpid()


def test_the_only_node_that_runs_here_is_meant(places: Places, tmp_path: Path) -> None:
    places.env_file.write_text("SERVICE_PORT=4000\n")
    found = find_target(Named(), places, lambda: [RunningNode(77, places.state_dir, "pgnode")])
    assert (found.settings.state_dir, found.pid, found.settings.service_port) == (places.state_dir, 77, 4000)
    assert found.why == f"the node that runs here: STATE_DIR={places.state_dir} (pid 77, user pgnode)"
    places.env_folder.mkdir()
    (places.env_folder / "one.env").write_text("SERVICE_PORT=4001\n")
    found = find_target(Named(), places, lambda: [RunningNode(77, places.state_dir / "one", "pgnode")])
    assert found.settings.service_port == 4001
    found = find_target(Named(), places, lambda: [RunningNode(77, tmp_path / "other", "pgnode")])
    assert found.settings.service_port == 62050


def test_of_several_one_has_to_be_named(places: Places) -> None:
    two = [RunningNode(number, Path(f"/lib/{number}"), "pgnode") for number in (77, 78)]
    with pytest.raises(
        OperatorError, match=r"several nodes run here: say which one with --state-dir\n  STATE_DIR=/lib/77"
    ):
        find_target(Named(), places, lambda: two)


def test_a_service_that_is_down_is_meant_where_there_is_nothing_else(places: Places) -> None:
    places.state_dir.mkdir()
    found = find_target(Named(), places, nobody)
    assert (found.settings.state_dir, found.pid) == (places.state_dir, None)
    assert "the service's node" in found.why


def test_what_is_named_is_meant(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.env"
    file.write_text(f"STATE_DIR={tmp_path}/a\nSERVICE_PORT=4002\nUNKNOWN=1\nGRPC_PORT\n")
    monkeypatch.setenv("SERVICE_PORT", "5000")
    found = find_target(Named(env_file=file), places, nobody)
    assert (found.settings.state_dir, found.settings.service_port) == (tmp_path / "a", 4002)
    found = find_target(Named(env_file=file, state_dir=tmp_path / "b"), places, nobody)
    assert (found.settings.state_dir, found.settings.service_port) == (tmp_path / "b", 4002)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "c"))
    assert find_target(Named(), places, nobody).settings.state_dir == tmp_path / "c"
    with pytest.raises(SettingsError, match="there is no such file"):
        find_target(Named(env_file=tmp_path / "nowhere"), places, nobody)
    file.write_text("SERVICE_PORT=none\n")
    with pytest.raises(SettingsError, match=r"a\.env: SERVICE_PORT=none is not allowed"):
        find_target(Named(env_file=file), places, nobody)


def test_a_service_of_several_is_known_by_its_name(places: Places, tmp_path: Path) -> None:
    places.env_folder.mkdir()
    (places.env_folder / "one.env").write_text("SERVICE_PORT=4001\n")
    found = find_target(Named(node="one"), places, nobody)
    assert (found.settings.state_dir, found.settings.service_port) == (places.state_dir / "one", 4001)
    assert find_target(Named(node="one", state_dir=tmp_path), places, nobody).settings.state_dir == tmp_path
    (places.env_folder / "two.env").write_text(f"STATE_DIR={tmp_path}/two\n")
    assert find_target(Named(node="two"), places, nobody).settings.state_dir == tmp_path / "two"
    with pytest.raises(OperatorError, match=r"--node three: there is no .*three\.env; nodes there: one, two"):
        find_target(Named(node="three"), places, nobody)
    with pytest.raises(OperatorError, match="is not allowed"):
        find_target(Named(node="../etc/passwd"), places, nobody)


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"STATE_DIR=.*/file is a file, and has to be a folder"):
        require_access(load(state_dir=str(tmp_path / "file")))


def test_another_users_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(state_dir=str(tmp_path))
    require_access(load(state_dir=str(tmp_path / "nowhere")))
    require_access(settings)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(OperatorError, match=r"is for user \S+ alone: be that user \(sudo -u \S+ pgnode …\), or root"):
        require_access(settings)

    def denied(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(OperatorError, match="may not be looked into"):
        require_access(settings)


def test_a_node_that_nobody_named_is_told_and_not_on_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load(state_dir=str(tmp_path))
    monkeypatch.setattr(target_module, "find_target", lambda _named: Target(settings, None, "the node that runs here"))
    assert find_with_settings(Named()) == (Target(settings, None, "the node that runs here"), settings)
    assert capsys.readouterr() == ("", "the node that runs here\n")


def test_the_file_by_which_it_was_found_is_known(places: Places, tmp_path: Path) -> None:
    places.env_file.write_text("SERVICE_PORT=4000\n")
    other = find_target(Named(), places, lambda: [RunningNode(77, places.state_dir, "pgnode")])
    assert other.env_file == places.env_file
    places.state_dir.mkdir(parents=True)
    assert find_target(Named(), places, nobody).env_file == places.env_file
    assert find_target(Named(env_file=places.env_file), places, nobody).env_file == places.env_file
    places.env_folder.mkdir()
    (places.env_folder / "east.env").write_text("SERVICE_PORT=4001\n")
    assert find_target(Named(node="east"), places, nobody).env_file == places.env_folder / "east.env"
    assert find_target(Named(state_dir=tmp_path), places, nobody).env_file is None
