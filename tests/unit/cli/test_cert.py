"""``pgnode cert``."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from pgnode.cli import cert
from pgnode.cli import target as target_module
from pgnode.cli.cert import check_files, renew_certificate, show_certificate
from pgnode.cli.target import Named, Target
from pgnode.errors import ArgumentError, OperatorError, SettingsError
from pgnode.settings import Settings, load
from pgnode.supervisor.host.certificate import check_pair
from pgnode.supervisor.host.identity import prepare_state_dir
from tests.support.identities import make_identity


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load(state_dir=tmp_path / "s", node_host="192.0.2.7", api_key=None, ssl_cert_file=None, ssl_key_file=None)
    prepare_state_dir(made)
    return made


@pytest.fixture
def node(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is different in the settings that there are now from those of the running node."""
    now: dict[str, Any] = {}
    monkeypatch.setattr(
        target_module,
        "find_target",
        lambda _named: Target(settings.model_copy(update=now), 812, "the node that runs here"),
    )
    monkeypatch.setattr(target_module, "running_settings", lambda _target: settings)
    return now


@pytest.mark.usefixtures("node")
def test_it_is_shown_ready_to_be_pasted(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OperatorError, match=r"there is no .*cert\.pem yet: the node makes it at its first start"):
        show_certificate(Named())
    make_identity(settings)
    pem = settings.cert_file.read_text().strip()
    capsys.readouterr()
    assert show_certificate(Named()) == 0
    shown = capsys.readouterr()
    assert shown.err == "the node that runs here\n"
    file, kind, names, *rest = shown.out.splitlines()
    assert file == f"file      {settings.cert_file}"
    assert kind.startswith("kind      self-signed, until 20")
    assert "192.0.2.7" in names
    assert "\n".join(rest) == pem
    assert show_certificate(Named(), json_wanted=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pem"], found["self_signed"]) == (pem, True)
    assert found["until"] == check_pair(settings)[1].timestamp()


def test_it_is_renewed_with_further_names(
    settings: Settings, node: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    make_identity(settings)
    before = settings.cert_file.read_text()
    node["cert_names"] = "node.example.com"
    assert renew_certificate(Named(), names=["203.0.113.9"], days=30) == 0
    _, until = check_pair(settings)
    assert (until - datetime.datetime.now(datetime.UTC)).days in (29, 30)
    assert settings.cert_file.read_text() != before
    text = capsys.readouterr().out
    assert "node.example.com" in text
    assert "203.0.113.9" in text
    assert "no more in it" not in text
    assert "panels pin the certificate" in text
    assert "the running node serves it" in text
    assert renew_certificate(Named()) == 0
    assert "no more in it: 203.0.113.9" in capsys.readouterr().out
    node.clear()
    assert renew_certificate(Named(), json_wanted=True) == 0
    assert json.loads(capsys.readouterr().out)["names_gone"] == ["node.example.com"]


@pytest.mark.usefixtures("node")
def test_nothing_is_renewed_where_that_cannot_be(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_identity(settings)
    before = settings.cert_file.read_text()
    with pytest.raises(ArgumentError, match="--name a b is not allowed: give an address"):
        renew_certificate(Named(), names=["a b"])
    theirs = settings.model_copy(update={"ssl_cert_file": tmp_path / "theirs.pem"})
    monkeypatch.setattr(target_module, "running_settings", lambda _target: theirs)
    with pytest.raises(OperatorError, match="is not the node's own certificate"):
        renew_certificate(Named())
    nowhere = settings.model_copy(update={"state_dir": tmp_path / "none"})
    monkeypatch.setattr(target_module, "running_settings", lambda _target: nowhere)
    with pytest.raises(OperatorError, match="the node makes it at its first start"):
        renew_certificate(Named())
    assert settings.cert_file.read_text() == before


def test_a_pair_is_checked_as_at_the_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_identity(settings)
    file, key = settings.cert_file, settings.cert_key_file
    assert check_files(file, key) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "they fit, and can be served"
    with pytest.raises(SettingsError, match="are swapped"):
        check_files(key, file)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        check_files(file, file.with_name("none.pem"))
    assert check_files(file, key, json_wanted=True) == 0
    assert json.loads(capsys.readouterr().out)["expired"] is False
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    monkeypatch.setattr(cert, "check_pair", lambda _settings: (b"", past))
    assert check_files(file, key) == 1
    assert "has expired" in capsys.readouterr().out
    assert check_files(file, key, json_wanted=True) == 1
