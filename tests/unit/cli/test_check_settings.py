"""``pgnode check-config`` without a file."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pgnode.cli import main
from pgnode.settings import load
from pgnode.supervisor.host import identity
from tests.support.identities import make_identity


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of a node that has a folder, a key and ports that nobody has."""
    for name in ("STATE_DIR", "API_KEY", "SSL_CERT_FILE", "SSL_KEY_FILE", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in (one, two)]
    state = tmp_path / "state"
    made = load(state_dir=str(state))
    make_identity(made)
    file = tmp_path / "node.env"
    file.write_text(
        f"STATE_DIR={state}\nNODE_HOST=127.0.0.1\nSERVICE_PROTOCOL=rest\nSERVICE_PORT={ports[0]}\nAPI_PORT={ports[1]}\n"
    )
    return file


def run(file: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["check-config", "--env-file", str(file), *more])


def test_settings_that_a_start_would_take(env_file: Path) -> None:
    found = run(env_file)
    assert (found.exit_code, "0 failures" in found.output) == (0, True)
    for part in ("is free", "has a key", "certificate and key fit"):
        assert part in found.output
    told = json.loads(run(env_file, "--json").output)
    assert (told["well"], {one["level"] for one in told["findings"]} <= {"ok", "warn"}) == (True, True)


def test_a_slip_in_the_file_is_told_by_its_name(env_file: Path) -> None:
    with env_file.open("a") as file:
        file.write("SERVICE_PROT=1\nHTTPS_PROXY=http://127.0.0.1:1\n")
    told = [one for one in json.loads(run(env_file, "--json").output)["findings"] if one["level"] == "warn"]
    assert [one["text"] for one in told if "means nothing" in one["text"]] == [
        f"SERVICE_PROT in {env_file} means nothing here: did you mean SERVICE_PORT?"
    ]


def test_what_a_start_would_refuse_ends_with_2(env_file: Path, tmp_path: Path) -> None:
    (tmp_path / "state" / "api_key").write_text("no key")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with env_file.open("a") as file:
            file.write(f"API_PORT={taken.getsockname()[1]}\n")
        found = run(env_file, "--json")
    failed = [one["text"] for one in json.loads(found.output)["findings"] if one["level"] == "fail"]
    assert found.exit_code == 2
    assert any(text.startswith("API_PORT=") and "in use" in text for text in failed)
    assert any("no API key in" in text for text in failed)
    env_file.write_text("SERVICE_PORT=none\n")
    assert (run(env_file).exit_code, "SERVICE_PORT=none is not allowed" in run(env_file).output) == (2, True)
    (tmp_path / "wrong.py").write_text("bind = 'x'\n")
    env_file.write_text(f"GUNICORN_CONF={tmp_path}/wrong.py\n")
    assert (run(env_file).exit_code, "sets bind" in run(env_file).output) == (2, True)


def test_ports_that_the_running_node_has_are_its_own(env_file: Path, tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path / "state"))
    with identity.lock_state_dir(settings), socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with env_file.open("a") as file:
            file.write(f"API_PORT={taken.getsockname()[1]}\n")
        found = run(env_file)
    assert (found.exit_code, "is the running node's" in found.output) == (0, True)
