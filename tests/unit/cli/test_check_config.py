"""``pgnode check-config``: what a start would say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pgnode.cli import check_config, main
from pgnode.cli.check_config import core_of
from pgnode.errors import StartFailedError
from pgnode.settings import load
from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the environment is lost to other tests."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def invoke(tmp_path: Path, config: dict[str, Any] | str, *arguments: str) -> tuple[int, str]:
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    command = ["check-config", str(tmp_path / "config.json"), "--state-dir", str(tmp_path / "state"), *arguments]
    found = CliRunner().invoke(main, command)
    return found.exit_code, found.output


def accepts(monkeypatch: pytest.MonkeyPatch, refusal: str = "") -> None:
    """Let the core say this; a real one takes seconds, and tests of a running node ask it."""

    async def check(_core: Core, _base: BaseConfig, _seconds: float) -> None:
        if refusal:
            raise StartFailedError(refusal)

    monkeypatch.setattr(check_config, "check_config", check)


def test_what_a_start_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accepts(monkeypatch)
    config = make_config([make_inbound("VLESS", "vless")])
    assert invoke(tmp_path, config) == (0, "a start would take it: 1 inbound\n")
    config["inbounds"][0]["settings"]["clients"] = [{"id": "7e3b1a52-1111-4222-8333-444455556666", "email": "x"}]
    code, output = invoke(tmp_path, config)
    assert (code, output.splitlines()[0]) == (
        0,
        "warning: inbound 'VLESS': 1 clients of the config dropped, the node owns this list",
    )
    code, output = invoke(tmp_path, config, "--json")
    assert (code, json.loads(output)["well"], len(json.loads(output)["warnings"])) == (0, True, 1)
    assert invoke(tmp_path, config, "--exclude", "VLESS")[1].startswith("a start would take it")
    assert not (tmp_path / "state").exists(), "nothing is touched"


def test_what_it_would_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    accepts(monkeypatch, "inbound 'VLESS': no")
    assert invoke(tmp_path, config) == (1, "refused: inbound 'VLESS': no\n")
    accepts(monkeypatch)
    assert invoke(tmp_path, "{}")[1] == "refused: config has no inbounds\n"
    config["outbounds"].append(
        {"protocol": "freedom", "settings": {"redirect": f"unix:{tmp_path}/state/run/control.sock"}}
    )
    code, output = invoke(tmp_path, config, "--json")
    assert (code, json.loads(output)["well"]) == (1, False)
    assert "own folder of sockets" in json.loads(output)["error"]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"log": {"access": "/etc/passwd"}}, "log.access '/etc/passwd' is not below"),
        ({"routing": {"script": "/x.lua"}}, "config: routing.script '/x.lua' is a script"),
    ],
)
def test_paths_that_a_config_may_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: dict[str, Any], words: str
) -> None:
    accepts(monkeypatch)
    code, output = invoke(tmp_path, make_config([make_inbound("VLESS", "vless")]) | part)
    assert code == 1
    assert words in output


def test_a_pipe_is_told_how_to_be_read(tmp_path: Path) -> None:
    # As a shell makes it for <(…).
    os.mkfifo(tmp_path / "pipe")
    found = CliRunner().invoke(main, ["check-config", str(tmp_path / "pipe"), "--state-dir", str(tmp_path)])
    assert (found.exit_code, found.output) == (
        1,
        f"pgnode: {tmp_path}/pipe cannot be read: is no regular file; give - in its place, and send the config to standard "
        "input\n",
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["check-config", str(tmp_path / "nowhere"), "--state-dir", str(tmp_path)])
    assert (found.exit_code, found.output) == (
        1,
        f"pgnode: {tmp_path}/nowhere cannot be read: No such file or directory\n",
    )
    (tmp_path / "latin").write_bytes("ä".encode("latin-1"))
    found = CliRunner().invoke(main, ["check-config", str(tmp_path / "latin"), "--state-dir", str(tmp_path)])
    assert found.output == f"pgnode: {tmp_path}/latin is not UTF-8: save it as UTF-8\n"
    found = CliRunner().invoke(main, ["check-config", "-", "--state-dir", str(tmp_path)], input="{")
    assert "refused: config is not valid JSON" in found.output


def test_the_core_is_the_one_of_the_next_start(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path))
    assert isinstance(core_of(settings), EmbeddedCore)
    executable = tmp_path / "cores" / "26.10.10" / "xray"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o700)
    chosen = {"version": "26.10.10", "sha256": "", "kept": ["26.10.10"], "instead_of": ""}
    (tmp_path / "cores" / "chosen.json").write_text(json.dumps(chosen))
    assert isinstance(core_of(settings), ExecutableCore)
