"""``pgnode worker``: what it needs, what it passes on, and what it says."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pgnode.bus.connection import connect
from pgnode.cli import alone
from pgnode.cli.alone import check_key, places, run_worker
from pgnode.cli.target import Places
from pgnode.errors import ArgumentError, OperatorError, SettingsError
from pgnode.os_support import streams
from pgnode.settings import load as load_settings
from pgnode.settings.alone import load_alone
from pgnode.settings.handover import ALONE_VARIABLE, ENVIRONMENT_VARIABLE, FILE_VARIABLE, SOCKETS_VARIABLE, VARIABLE
from pgnode.settings.handover import load_handed_over as load
from pgnode.testing.ports import free_port
from tests.support.certificates import make_certificate
from tests.support.kept_logging import kept_logging
from tests.support.valkey import TestValkey

KEY = "5f0c4c4e-3a0e-4d3a-9f43-0d2c6a0f6a11"


class Became(Exception):
    """What this process would be from here on."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        super().__init__(command)
        self.command, self.environment = command, environment


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, valkey: TestValkey) -> Any:
    """All that a worker needs is in the environment."""
    cert_file, key_file = make_certificate(tmp_path, ["localhost"], ["127.0.0.1"])
    before = dict(os.environ)
    for name, value in {
        "STATE_DIR": tmp_path / "none",
        "REDIS_URL": valkey.url,
        "API_KEY": KEY,
        "SSL_CERT_FILE": cert_file,
        "SSL_KEY_FILE": key_file,
        "NODE_HOST": "127.0.0.1",
        "SERVICE_PORT": free_port(),
        "API_PORT": free_port(),
        "LOG_LEVEL": "warning",
        "SECRET_OF_SOMEBODY": "x",
    }.items():
        os.environ[name] = str(value)

    def become(program: str, command: list[str], environment: Mapping[str, str]) -> None:
        assert program == sys.executable
        inherited = [
            environment[VARIABLE],
            environment[ENVIRONMENT_VARIABLE],
            *environment[SOCKETS_VARIABLE].split(","),
        ]
        assert [os.get_inheritable(int(number)) for number in inherited] == [True] * 4
        raise Became(command, environment)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execve", become)
    for name in ("make_safe", "drain"):
        monkeypatch.setattr(streams, name, lambda: None)
    mask = os.umask(0o022)
    with kept_logging():
        yield
    os.umask(mask)
    os.environ.clear()
    os.environ.update(before)


def test_it_becomes_gunicorn_with_settings_sockets_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Became) as became:
        run_worker("rest", None, None)
    environment = became.value.environment
    assert became.value.command[1:3] == ["-m", "gunicorn"]
    assert (environment[ALONE_VARIABLE], environment["LOG_LEVEL"]) == ("rest", "warning")
    assert not {"API_KEY", "REDIS_URL", "SECRET_OF_SOMEBODY", FILE_VARIABLE} & set(environment)
    monkeypatch.setenv(VARIABLE, environment[VARIABLE])
    assert load().api_key == KEY


def test_it_says_what_it_serves_where(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Became):
        run_worker("rest", None, None)
    said = capsys.readouterr().err
    settings = load_alone("rest")
    assert (
        f"pgnode: API workers serve REST on https://127.0.0.1:{settings.service_port} and maintenance on https://"
        in said
    )
    assert "for the supervisor at REDIS_URL=" in said
    assert KEY not in said
    named = load_settings(node_host="::1", service_protocol="grpc", service_port=1, api_port=2)
    assert places("grpc", named) == "API workers serve gRPC on [::1]:1"
    assert places("rest", named) == "API workers serve maintenance on https://[::1]:2"


def test_a_file_of_settings_goes_along(tmp_path: Path) -> None:
    folder = tmp_path / "nodes"
    folder.mkdir()
    (folder / "east.env").write_text("WEB_CONCURRENCY=3\nHTTPS_PROXY=http://192.0.2.1:3128\n")
    with pytest.raises(Became) as became:
        run_worker("rest", None, "east", places=Places(env_folder=folder))
    assert became.value.environment[FILE_VARIABLE] == str(folder / "east.env")
    assert became.value.environment["HTTPS_PROXY"] == "http://192.0.2.1:3128"
    with pytest.raises(ArgumentError, match="give one of them"):
        run_worker("rest", tmp_path / "a.env", "east", places=Places(env_folder=folder))


@pytest.mark.parametrize(
    ("take_away", "sentence"),
    [
        (("REDIS_URL",), "REDIS_URL is not set"),
        (("API_KEY",), "there is no API key: set API_KEY, or API_KEY_FILE, or put the supervisor's into "),
        (("SSL_CERT_FILE", "SSL_KEY_FILE"), "there is no certificate: set SSL_CERT_FILE and SSL_KEY_FILE, or put "),
    ],
)
def test_what_is_missing_is_a_sentence(
    take_away: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in take_away:
        del os.environ[name]
    with pytest.raises(SettingsError) as refused:
        run_worker("rest", None, None)
    assert str(refused.value).startswith(sentence)
    if take_away != ("REDIS_URL",):
        assert run_worker("rest", None, None, check=True, json_wanted=True) == 2
        assert sentence in capsys.readouterr().out


def test_a_check_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_worker("rest", None, None, check=True, json_wanted=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["well"]
    assert any("answers, and evicts nothing" in each["text"] for each in found["findings"])


@pytest.mark.parametrize("name", ["what_is_missing", "find_temporary_folder"])
def test_what_the_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    lacking: Callable[..., str] = lambda *_arguments: "no /proc"  # noqa: E731
    monkeypatch.setattr(alone, name, lacking)
    with pytest.raises(OperatorError, match="no /proc"):
        run_worker("rest", None, None)


def test_names_that_mean_nothing_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.env").write_text("WEB_CONCURENCY=3\n")
    with pytest.raises(Became):
        run_worker("rest", tmp_path / "w.env", None)
    assert "WEB_CONCURENCY" in capsys.readouterr().err


def test_grpc_workers_are_kept_by_this_process_without_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Alone:
        def __init__(self, settings: Any, handover: Any, again: Callable[[], Any], manager: Any) -> None:
            assert not {"API_KEY", "REDIS_URL"} & set(os.environ)
            assert os.environ[ALONE_VARIABLE] == "grpc"
            file.write_text("GRPC_WORKERS=5\n")
            seen.extend([settings.grpc_worker_count, again().grpc_worker_count, manager.listens, handover.descriptor])
            assert "API_KEY" not in os.environ

        async def run(self) -> int:
            return 7

    file = tmp_path / "w.env"
    file.write_text("GRPC_WORKERS=2\n")
    monkeypatch.setattr(alone, "GrpcAlone", Alone)
    os.environ["NOTIFY_SOCKET"] = "@nobody"
    assert run_worker("grpc", file, None) == 7
    assert seen[:3] == [2, 5, True]
    os.close(seen[3])


def test_gunicorn_tells_the_service_manager_itself() -> None:
    os.environ["NOTIFY_SOCKET"] = "@nobody"
    with pytest.raises(Became) as became:
        run_worker("rest", None, None)
    assert became.value.environment["NOTIFY_SOCKET"] == "@nobody"


async def test_a_key_that_the_supervisor_tells_of_is_enough(
    valkey: TestValkey, capsys: pytest.CaptureFixture[str]
) -> None:
    del os.environ["API_KEY"]
    redis = connect(valkey.url)
    await redis.hset("pgnode:snapshot:supervisor", mapping={"rev": 1, "at_ms": 1, "body": "{}"})
    await redis.aclose()
    settings = load_alone("rest")
    assert (await check_key(settings, 3)).text == "the API key is the one that the supervisor tells of"
    valkey.kill()
    assert "Redis does not say whether" in (await check_key(settings, 3)).text
