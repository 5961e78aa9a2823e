"""What an operator sees when the node is up."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from pgnode import __version__
from pgnode.settings import load
from pgnode.supervisor.host.banner import banner, ready_fields
from pgnode.supervisor.host.identity import Identity

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "5f0c4c4e-3a0e-4d3a-9f43-0d2c6a0f6a11"


def shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *, new: bool = False, users: int = 0, **options: Any
) -> str:
    settings = load(state_dir=str(tmp_path), **options)
    settings.cert_file.parent.mkdir(exist_ok=True)
    settings.cert_file.write_text(PEM)
    banner(settings, Identity(KEY, new, new), core="embedded", version="26.10.10", users=users)
    return capsys.readouterr().out


def test_a_new_key_is_shown_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first = shown(capsys, tmp_path, new=True, service_protocol="rest")
    assert KEY in first
    assert "self-signed, new" in first
    again = shown(capsys, tmp_path, service_protocol="rest", users=1)
    assert KEY not in again
    assert "kept in" in again
    assert "1 user in the store" in again


def test_what_a_panel_asks_for_can_be_copied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = shown(capsys, tmp_path, new=True, node_host="203.0.113.7")
    form = text.partition("what a panel asks for")[2]
    lines = form.splitlines()
    assert "Address       203.0.113.7" in lines
    assert "Port          62050 (REST) or 62052 (gRPC)" in lines
    assert "API port      62051" in lines
    assert f"API key       {KEY}" in lines
    assert PEM.splitlines() == lines[lines.index(PEM.splitlines()[0]) :][:3]
    assert "what a panel asks for" not in shown(capsys, tmp_path)


def test_a_node_without_workers_names_no_address_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nobody: dict[str, Any] = {"service_protocol": "none", "redis_url": "redis://192.0.2.1"}
    text = shown(capsys, tmp_path, new=True, **nobody)
    assert "served by the workers of `pgnode worker`" in text
    assert "supervisor, Redis at REDIS_URL, the core when started" in text
    assert "62050" not in text
    assert "62051" not in text
    fields = ready_fields(load(state_dir=str(tmp_path), **nobody), core="x", version="1")
    assert not {"rest", "grpc", "maintenance"} & set(fields)


def test_what_is_the_operators_own_is_not_repeated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path), node_host="127.0.0.1", api_key=KEY, service_protocol="grpc")
    settings.cert_file.parent.mkdir(exist_ok=True)
    settings.cert_file.write_text(PEM)
    banner(settings, Identity(KEY, key_is_new=False, cert_is_new=True), core="embedded", version="26.10.10", users=0)
    form = capsys.readouterr().out.partition("what a panel asks for")[2]
    assert "Address       127.0.0.1  (only from this machine)" in form
    assert "Port          62050 (gRPC)" in form
    assert "API key       as API_KEY says" in form
    assert KEY not in form


def test_a_key_of_the_settings_is_not_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = shown(capsys, tmp_path, api_key=KEY, node_host="::1", service_protocol="rest")
    assert KEY not in text
    assert "as API_KEY says" in text
    assert "https://[::1]:" in text
    assert "$API_KEY" in text


def test_each_way_to_call_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    both = shown(capsys, tmp_path, service_protocol="both", users=2)
    assert "REST)" in both
    assert "gRPC, TLS)" in both
    assert "2 users in the store" in both
    only_grpc = shown(capsys, tmp_path, service_protocol="grpc")
    assert "REST)" not in only_grpc
    assert "Gunicorn with" in only_grpc


def test_what_others_say_moves_no_cursor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path))
    banner(settings, Identity(KEY, False, False), core="x\x1b[2J", version="1\u202e", users=0)
    text = capsys.readouterr().out
    assert "Xray 1\\u202e, x\\x1b[2J" in text
    assert all(line.isprintable() for line in text.splitlines())


class _Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self) -> bool:
        return True


def test_names_are_bold_on_a_terminal_and_lines_are_as_wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := _Terminal())
    monkeypatch.setenv("COLUMNS", "50")
    banner(load(state_dir=str(tmp_path)), Identity(KEY, False, False), core="embedded", version="26.10.10", users=0)
    first, *_, last = terminal.getvalue().splitlines()
    assert first.endswith(" is ready " + "-" * (50 - first.index(" is ready ") - len(" is ready ")))
    assert last == "-" * 50
    assert "\x1b[1mState         \x1b[0m" in terminal.getvalue()


def test_a_width_that_is_too_small_is_no_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "5")
    text = shown(capsys, tmp_path)
    assert f"pgnode {__version__} is ready \n" in text
    assert text.endswith("─────\n")
    assert "\x1b" not in text


def test_programs_are_told_where_it_listens_and_no_key(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path), api_key=KEY)
    found = ready_fields(settings, core="embedded", version="26.10.10")
    assert {name: found[name] for name in ("rest", "grpc", "maintenance")} == {
        "rest": "62050",
        "grpc": "62052",
        "maintenance": "62051",
    }
    assert KEY not in str(found)
    assert "grpc" not in ready_fields(load(state_dir=str(tmp_path), service_protocol="rest"), core="x", version="1")
