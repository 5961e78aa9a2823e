"""``pgnode run`` runs a supervisor with the settings of the environment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from pgnode.cli import main
from pgnode.cli.run import run_named, run_node
from pgnode.cli.target import Places
from pgnode.errors import ArgumentError, OperatorError, SettingsError
from pgnode.os_support import streams
from pgnode.os_support.lean_start import CHECKED_VARIABLE
from pgnode.settings import Settings
from pgnode.settings.handover import Checked, take_checked
from pgnode.supervisor import checked_start as supervisor


@pytest.fixture(autouse=True)
def no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the tests stays what it is, as where the system refuses an exec."""

    def refuse(*_: object) -> None:
        raise OSError("no exec")

    monkeypatch.setattr(os, "execve", refuse)


@pytest.fixture(autouse=True)
def safe(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The streams of this process are the test's."""
    made: list[str] = []
    monkeypatch.setattr(streams, "make_safe", lambda: made.append("safe"))
    return made


def test_the_supervisor_gets_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def run(settings: Settings, _env_file: Path | None) -> int:
        seen.append(settings)
        return 3

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.delenv("GRPC_ENABLE_FORK_SUPPORT", raising=False)
    monkeypatch.setattr(supervisor, "run", run)
    assert run_node() == 3
    assert [settings.state_dir for settings in seen] == [tmp_path]
    assert os.environ["GRPC_ENABLE_FORK_SUPPORT"] == "0", "set before anything of gRPC is imported"


def test_a_file_of_settings_wins_and_the_rest_of_it_is_for_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[Settings, Path | None]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    monkeypatch.setenv("HTTPS_PROXY", "")

    def run(settings: Settings, env_file: Path | None) -> int:
        seen.append((settings, env_file))
        return 0

    monkeypatch.setattr(supervisor, "run", run)
    (tmp_path / "node.env").write_text("WEB_CONCURRENCY=5\nHTTPS_PROXY=http://127.0.0.1:3128\nSERVICE_PROT=1\n")
    with pytest.raises(SystemExit) as ended:
        main(["run", "--env-file", "node.env"])
    assert ended.value.code == 0
    [(settings, file)] = seen
    assert (settings.web_concurrency, file) == (5, tmp_path / "node.env")
    assert os.environ.pop("SERVICE_PROT") == "1"
    assert os.environ["HTTPS_PROXY"] == "http://127.0.0.1:3128"
    assert (
        f"SERVICE_PROT in {tmp_path}/node.env means nothing here: did you mean SERVICE_PORT?" in capsys.readouterr().err
    )
    with pytest.raises(SettingsError, match="there is no such file"):
        run_node(tmp_path / "no.env")


def test_a_slip_in_a_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setattr(supervisor, "run", lambda *_: 0)
    (tmp_path / ".env").write_text("SERVICE_PROT=1\n")
    assert run_node() == 0
    assert capsys.readouterr().err == "pgnode: SERVICE_PROT in .env means nothing here: did you mean SERVICE_PORT?\n"


def test_programs_are_told_in_the_form_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise SettingsError("no room")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setattr(supervisor, "run", fail)
    (tmp_path / ".env").write_text("SERVICE_PROT=1\n")
    assert run_node() == SettingsError.exit_code
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["level"], one["message"]) for one in said] == [
        ("warning", "SERVICE_PROT in .env means nothing here: did you mean SERVICE_PORT?"),
        ("error", "no room"),
    ]


def test_wrong_settings_are_refused_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SERVICE_PORT", "no port")
    with pytest.raises(SettingsError, match="SERVICE_PORT"):
        run_node()
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_told_first_and_no_reader_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, safe: list[str]
) -> None:
    monkeypatch.setattr("pgnode.cli.run.what_is_missing", lambda: "there is no /proc")
    with pytest.raises(OperatorError, match="no /proc"):
        run_node()
    assert safe == ["safe"]


def test_variables_of_the_grpc_library_have_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GRPC_TRACE", "all")
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("GRPC_WORKERS", "1")
    monkeypatch.setattr(supervisor, "run", lambda *_: 0)
    assert run_node() == 0
    assert "GRPC_TRACE" not in os.environ
    assert os.environ["GRPC_WORKERS"] == "1"
    assert "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" not in os.environ
    assert capsys.readouterr().err == "pgnode: GRPC_TRACE has no effect: it is for the gRPC library\n"


def test_a_node_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, Path | None]] = []

    def run(settings: Settings, env_file: Path | None) -> int:
        seen.append((settings.state_dir, env_file))
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", "/elsewhere")
    monkeypatch.setattr(supervisor, "run", run)
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "east.env").write_text("WEB_CONCURRENCY=1\n")
    (etc / "west.env").write_text(f"STATE_DIR={tmp_path}/west\n")
    places = Places(etc / "none", etc, tmp_path / "lib")
    assert run_named(None, "east", None, places) == 0
    assert os.environ["STATE_DIR"] == str(tmp_path / "lib" / "east"), "what is started again with it finds the same"
    assert run_named(None, "west", None, places) == 0
    assert run_named(None, "east", Path("mine"), places) == 0
    assert run_named(None, None, tmp_path / "own", places) == 0
    assert run_named(None, None, None, places) == 0
    assert seen == [
        (tmp_path / "lib" / "east", etc / "east.env"),
        (tmp_path / "west", etc / "west.env"),
        (tmp_path / "mine", etc / "east.env"),
        (tmp_path / "own", None),
        (tmp_path / "own", None),
    ]
    for file, node, folder in (
        (etc / "east.env", "west", None),
        (etc / "west.env", None, tmp_path),
        (None, "north", None),
    ):
        with pytest.raises(ArgumentError):
            run_named(file, node, folder, places)


def test_the_process_becomes_a_supervisor_that_is_told_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Checked] = []
    words: list[tuple[object, object]] = []

    def execve(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        words.append((program, arguments))
        assert os.get_inheritable(int(environment[CHECKED_VARIABLE]))
        assert environment["FROM_FILE"] == "1"
        told.append(take_checked(environment))
        raise SystemExit

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.delenv("FROM_FILE", raising=False)
    monkeypatch.setattr(os, "execve", execve)
    (tmp_path / "node.env").write_text("SERVICE_PROT=1\nWEB_CONCURRENCY=5\nFROM_FILE=1\n")
    with pytest.raises(SystemExit):
        run_node(tmp_path / "node.env")
    assert words == [(sys.executable, sys.orig_argv)]
    [checked] = told
    assert (checked.settings.web_concurrency, checked.env_file) == (5, tmp_path / "node.env")
    assert any("SERVICE_PROT" in sentence for sentence in checked.sentences)
    assert (os.environ.pop("SERVICE_PROT"), os.environ.pop("FROM_FILE")) == ("1", "1")


def test_without_memory_or_a_folder_for_what_was_checked_it_goes_on_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_checked: Checked) -> int:
        raise OSError("no room")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setattr("pgnode.cli.run.hand_on", refuse)
    monkeypatch.setattr(supervisor, "run", lambda *_: 4)
    assert run_node() == 4
