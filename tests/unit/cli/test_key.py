"""``pgnode key``."""

from __future__ import annotations

import datetime
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from pgnode.cli import key as key_module
from pgnode.cli import target as target_module
from pgnode.cli.key import forget_previous, parse_overlap, rotate, show_key
from pgnode.cli.target import Named, Target
from pgnode.errors import OperatorError, SettingsError
from pgnode.settings import Settings, load, read_api_key
from pgnode.settings.previous_key import previous_key_file, read_previous_key
from pgnode.supervisor.control.client import NotAnsweredError

KEY = str(uuid.UUID(int=1))


class Node:
    """The node that is meant, and what it says of its settings."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.target = Target(settings, None, "the node that runs here")
        self.says: dict[str, Any] | None = {}
        #: How often it was asked.
        self.asked = 0
        monkeypatch.setattr(target_module, "find_target", lambda _named: self.target)
        monkeypatch.setattr(key_module, "settings_of", lambda target, _said: target.settings)
        monkeypatch.setattr(target_module, "ask", lambda _folder, _what, **_options: self.answer())

    def answer(self) -> dict[str, Any]:
        self.asked += 1
        if self.says is None:
            raise NotAnsweredError("it hangs")
        return self.says

    def is_given(self, *, pid: int | None = None, **values: Any) -> None:
        self.target = Target(self.target.settings.model_copy(update=values), pid)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load(state_dir=tmp_path, api_key=None, api_key_file=None, node_host="192.0.2.7")
    made.key_file.write_text(f"{KEY}\n")
    made.cert_file.parent.mkdir()
    made.cert_file.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    return made


@pytest.fixture
def node(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(settings, monkeypatch)


@pytest.mark.usefixtures("node")
def test_the_key_alone_and_all_that_a_form_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_key(Named()) == 0
    assert capsys.readouterr() == (f"{KEY}\n", "the node that runs here\n")
    assert show_key(Named(), block=True) == 0
    form = capsys.readouterr().out.splitlines()
    assert "Address       192.0.2.7" in form
    assert f"API key       {KEY}" in form
    assert "-----BEGIN CERTIFICATE-----" in form
    assert show_key(Named(), block=True, json_wanted=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["key"], found["addresses"], found["api_port"]) == (KEY, ["192.0.2.7"], 62051)
    assert found["certificate"].startswith("-----BEGIN")
    assert found["previous_until"] is None


def test_a_key_of_the_settings_is_shown_and_not_rotated(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(uuid.UUID(int=9))
    node.is_given(api_key=other)
    show_key(Named())
    assert capsys.readouterr().out == f"{other}\n"
    for command in (rotate, forget_previous):
        with pytest.raises(OperatorError, match=r"comes from API_KEY, which cannot be rotated.*API_KEY_FILE"):
            command(Named())


def test_the_running_nodes_own_environment_counts(node: Node, settings: Settings) -> None:
    node.says = {"API_KEY": "(set)"}
    node.is_given(pid=812)
    with pytest.raises(OperatorError, match="of its own environment"):
        show_key(Named())
    with pytest.raises(OperatorError, match="cannot be rotated"):
        rotate(Named())
    assert read_api_key(settings) == KEY


def test_no_key_and_no_certificate(node: Node, settings: Settings) -> None:
    settings.cert_file.write_bytes(b"\xff")
    with pytest.raises(OperatorError, match="PEM is ASCII"):
        show_key(Named(), block=True)
    settings.cert_file.unlink()
    with pytest.raises(OperatorError, match=r"cert\.pem cannot be read"):
        show_key(Named(), block=True, json_wanted=True)
    settings.key_file.write_text("nonsense")
    with pytest.raises(SettingsError, match="no API key in"):
        show_key(Named())
    settings.key_file.unlink()
    with pytest.raises(OperatorError, match="the node makes it at its first start"):
        rotate(Named())
    assert node.target.pid is None


def test_a_rotation_and_its_end(node: Node, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    node.says = None
    node.is_given(pid=812)
    assert rotate(Named()) == 0
    assert node.asked == 1, "one that hangs costs its time once"
    new = read_api_key(settings)
    assert new != KEY
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"new key   {new[:4]}…")
    assert new not in lines[0]
    assert lines[1].startswith("old key   valid until ")
    assert lines[2] == "the running node knows it within 2 seconds"
    show_key(Named(), json_wanted=True)
    shown = json.loads(capsys.readouterr().out)
    previous = read_previous_key(settings)
    assert previous is not None
    assert (shown["key"], shown["previous_until"]) == (new, previous.until.timestamp())
    assert rotate(Named(), overlap="0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "old key   not valid any more"
    assert lines[2].startswith("the key before that, which was valid until ")
    assert not previous_key_file(settings).exists()


def test_the_previous_key_is_forgotten(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.is_given()
    assert rotate(Named(), overlap="90d", json_wanted=True) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"key", "previous_until"}
    assert forget_previous(Named()) == 0
    assert forget_previous(Named()) == 0
    assert forget_previous(Named(), json_wanted=True) == 0
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert (first, second) == (
        "the previous key is not valid any more",
        "there is no previous key: the current one alone is valid",
    )
    assert json.loads("".join(rest)) == {"forgotten": False}


def test_how_long_both_are_valid() -> None:
    assert parse_overlap("0") == parse_overlap("0s") == datetime.timedelta()
    assert parse_overlap(" 30m ") == datetime.timedelta(minutes=30)
    assert parse_overlap("90d") == datetime.timedelta(days=90)
    for text in ("", "24", "91d", "-1h", "1w", "1.5h", "٣h"):
        with pytest.raises(OperatorError, match="give 0, or a number"):
            parse_overlap(text)
