"""Settings of workers without a supervisor beside them: what they cannot do without, and how they are read again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pgnode.errors import SettingsError
from pgnode.settings.alone import load_alone, main
from pgnode.settings.handover import ENVIRONMENT_VARIABLE, VARIABLE, hand_over, hand_over_environment, load_handed_over


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://192.0.2.1/0")
    return monkeypatch


@pytest.mark.parametrize(
    ("kind", "said", "taken"),
    [
        ("rest", "both", "rest"),
        ("rest", "grpc", "rest"),
        ("rest", "none", "rest"),
        ("grpc", "both", "both"),
        ("grpc", "rest", "both"),
        ("grpc", "none", "both"),
        ("grpc", "grpc", "grpc"),
    ],
)
def test_what_is_served_follows_the_kind(environment: pytest.MonkeyPatch, kind: Any, said: str, taken: str) -> None:
    environment.setenv("SERVICE_PROTOCOL", said)
    assert load_alone(kind).service_protocol == taken


def test_without_a_redis_of_others_there_is_nobody_to_meet(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("REDIS_URL")
    with pytest.raises(SettingsError, match="REDIS_URL is not set: workers meet the supervisor over"):
        load_alone("rest")


def test_no_worker_is_none(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GRPC_WORKERS", "0")
    assert load_alone("rest").grpc_workers == 0
    with pytest.raises(SettingsError, match="GRPC_WORKERS=0 is not allowed: nothing would be served"):
        load_alone("grpc")


def read_again(environment: pytest.MonkeyPatch, *files: str) -> tuple[int, int | None]:
    """The exit code, and the number of workers that was written."""
    before = hand_over(load_alone("rest"), Path(tempfile.gettempdir()))
    described = hand_over_environment({"WEB_CONCURRENCY": "7"}, Path(tempfile.gettempdir()))
    environment.setenv(VARIABLE, str(before.descriptor))
    environment.setenv(ENVIRONMENT_VARIABLE, str(described))
    with tempfile.TemporaryFile() as made:
        code = main(["rest", str(made.fileno()), *files])
        written = None
        if os.fstat(made.fileno()).st_size:
            environment.setenv(VARIABLE, str(made.fileno()))
            written = load_handed_over().web_concurrency
    os.close(before.descriptor)
    os.close(described)
    return code, written


def test_they_are_read_again_with_the_environment_of_the_start(environment: pytest.MonkeyPatch) -> None:
    # It is laid over this process's own.
    environment.setenv("WEB_CONCURRENCY", "1")
    assert read_again(environment) == (0, 7)


def test_what_is_not_allowed_is_said_and_not_written(
    environment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("WEB_CONCURRENCY", "1")
    file = tmp_path / "worker.env"
    file.write_text("WEB_CONCURRENCY=many\n")
    assert read_again(environment, str(file)) == (2, None)
    assert "WEB_CONCURRENCY=many is not allowed" in capsys.readouterr().out
    file.write_text("SERVICE_PORT=1\n")
    assert read_again(environment, str(file)) == (2, None)
    assert "SERVICE_PORT is another one now, which needs a stop and a start" in capsys.readouterr().out
