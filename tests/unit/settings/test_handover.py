"""Workers have the settings that the supervisor has."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from pgnode.errors import SettingsError
from pgnode.os_support.lean_start import CHECKED_VARIABLE
from pgnode.settings import load
from pgnode.settings.handover import (
    ENVIRONMENT_VARIABLE,
    VARIABLE,
    Checked,
    hand_on,
    hand_over,
    hand_over_environment,
    load_handed_over,
    take_checked,
    take_environment,
)


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    path = tmp_path / "xray"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    return path


def test_what_was_handed_over_is_read_again_and_again(monkeypatch: pytest.MonkeyPatch, executable: Path) -> None:
    settings = load(api_key="123e4567-e89b-42d3-a456-426614174000", xray_executable_path=executable, debug=True)
    handover = hand_over(settings)
    for name, value in handover.environment.items():
        monkeypatch.setenv(name, value)
    assert handover.pass_fds == (handover.descriptor,)
    # What is edited or deleted meanwhile makes no difference.
    monkeypatch.setenv("DEBUG", "false")
    executable.unlink()
    for _ in range(2):
        found = load_handed_over()
        assert dict(found) == dict(settings)
        assert found.cert_file == settings.cert_file
        assert str(settings.api_key) not in repr(found)
        with pytest.raises(AttributeError, match="debug cannot be set"):
            found.debug = False  # type: ignore[misc]
    os.close(handover.descriptor)


def test_where_memory_without_a_name_is_forbidden_a_file_without_one_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load(state_dir=tmp_path)
    settings.run_dir.mkdir()
    with mock.patch("os.memfd_create", side_effect=PermissionError):
        handover = hand_over(settings)
    assert not any(settings.run_dir.iterdir())
    monkeypatch.setenv(VARIABLE, str(handover.descriptor))
    assert dict(load_handed_over()) == dict(settings)
    os.close(handover.descriptor)


def test_a_worker_that_was_started_by_hand_reads_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "7")
    assert load_handed_over().web_concurrency == 7


@pytest.mark.parametrize("number", ["none", "987654", ""])
def test_a_descriptor_that_holds_none(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, number)
    with pytest.raises(SettingsError, match=r"PGNODE_SETTINGS_FD=.*unset it"):
        load_handed_over()


@pytest.mark.parametrize("memory", [True, False])
def test_an_environment_is_taken_whole(memory: bool, tmp_path: Path) -> None:
    # What is no text in the system's encoding stands for itself.
    whole = {"API_KEY": "opens the API", "ODD": "\udcff\n=", "PATH": "/bin"}
    with mock.patch("os.memfd_create", side_effect=None if memory else PermissionError, wraps=os.memfd_create):
        descriptor = hand_over_environment(whole, tmp_path)
    assert not any(tmp_path.iterdir())
    environment = {"PATH": "/usr/bin", "LANG": "C", ENVIRONMENT_VARIABLE: str(descriptor)}
    take_environment(environment)
    os.close(descriptor)
    assert environment == {**whole, "LANG": "C"}


@pytest.mark.parametrize("number", ["none", "987654", ""])
def test_a_descriptor_that_holds_no_environment(number: str) -> None:
    environment = {ENVIRONMENT_VARIABLE: number}
    with pytest.raises(SettingsError, match="does not hold an environment"):
        take_environment(environment)
    none: dict[str, str] = {}
    take_environment(none)
    assert none == {}


def test_what_was_checked_is_taken_once(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path, web_concurrency=3, debug=True)
    descriptor = hand_on(Checked(settings, tmp_path / "node.env", ("one", "two")))
    assert os.get_inheritable(descriptor)
    environment = {CHECKED_VARIABLE: str(descriptor), "OTHER": "1"}
    found = take_checked(environment)
    assert environment == {"OTHER": "1"}
    assert dict(found.settings) == dict(settings)
    assert (found.env_file, list(found.sentences)) == (tmp_path / "node.env", ["one", "two"])
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    assert take_checked({CHECKED_VARIABLE: str(hand_on(Checked(settings, None, ())))}).env_file is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 1, "env_file": null, "sentences": []}'])
def test_a_descriptor_that_holds_nothing_that_was_checked(content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(SettingsError, match=f"{CHECKED_VARIABLE}={descriptor} does not hold settings"):
        take_checked({CHECKED_VARIABLE: str(descriptor)})


def test_a_number_that_is_none() -> None:
    with pytest.raises(SettingsError, match="unset it"):
        take_checked({CHECKED_VARIABLE: "x"})
