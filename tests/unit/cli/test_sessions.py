"""``pgnode users NAME --sessions`` and ``--disconnect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgnode.cli import main, sessions
from pgnode.cli.sessions import ended_lines, left_lines, session_lines
from pgnode.cli.target import Target
from pgnode.settings import load

ONE = {"address": "192.0.2.1", "port": 5, "inbound": "VLESS", "since": 1000.0, "shared": False}
OTHER = {"address": "2001:db8::1", "port": 6, "inbound": "a tag", "since": None, "shared": True}
LEFT = {"at": 1000.0, "reasons": ["it is no connection of TCP"]}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a supervisor is asked."""
    asked: list[dict[str, Any]] = []

    def ask(_target: Target, question: str, values: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        assert question == "sessions"
        assert seconds > 10
        asked.append(values)
        return {"sessions": [ONE], "ended": 3, "left": None}

    target = Target(load(state_dir=str(tmp_path)), 812, "this one")
    monkeypatch.setattr(sessions, "find_target", lambda _named: target)
    monkeypatch.setattr(sessions, "ask_node", ask)
    return asked


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["users", *arguments])


def test_a_users_connections_are_a_table() -> None:
    lines = list(session_lines({"sessions": [ONE, {**ONE, "shared": True}, OTHER], "left": LEFT}))
    assert lines[0].split() == ["from", "inbound", "since"]
    assert lines[1].startswith("192.0.2.1:5 ")
    assert lines[2].endswith("with other users")
    assert lines[3].startswith("[2001:db8::1]:6  a tag    not known")
    assert lines[3].endswith("perhaps another user's")
    assert "should have ended: it is no connection of TCP" in lines[4]
    assert list(session_lines({})) == ["no open connection over TCP that is known to be this user's"]


def test_what_was_ended_is_said() -> None:
    assert next(ended_lines({"ended": 1})).startswith("1 connection ended;")
    assert len(list(ended_lines({"ended": 2, "left": LEFT}))) == 2
    assert list(left_lines(None)) == []


def test_they_are_shown(told: list[dict[str, Any]]) -> None:
    shown = run("alice", "--sessions")
    assert shown.exit_code == 0
    assert "192.0.2.1:5" in shown.output
    assert json.loads(run("alice", "--sessions", "--json").output)["sessions"] == [ONE]
    assert told == 2 * [{"user": "alice", "do": "look"}]


def test_they_are_ended_and_that_is_in_the_audit_trail(told: list[dict[str, Any]], tmp_path: Path) -> None:
    assert "3 connections ended" in run("alice", "--disconnect").output
    assert told == [{"user": "alice", "do": "disconnect"}]
    assert "a user's connections were ended" in (tmp_path / "audit.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [["--sessions"], ["--disconnect"], ["a", "--sessions", "--disconnect"], ["a", "--sessions", "--failed"]],
)
def test_what_makes_no_sense_is_refused(told: list[dict[str, Any]], arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
    assert told == []
