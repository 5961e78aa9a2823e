"""What an operator sees when the node is up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgnode.settings import load
from pgnode.supervisor.host.banner import banner
from pgnode.supervisor.host.identity import Identity

KEY = "5f0c4c4e-3a0e-4d3a-9f43-0d2c6a0f6a11"


def shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *, new: bool = False, users: int = 0, **options: Any
) -> str:
    settings = load(state_dir=str(tmp_path), **options)
    banner(settings, Identity(KEY, new, new), core="embedded", version="26.10.10", users=users)
    return capsys.readouterr().out


def test_a_new_key_is_shown_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first = shown(capsys, tmp_path, new=True, service_protocol="rest")
    assert KEY in first
    assert "self-signed, made now" in first
    again = shown(capsys, tmp_path, service_protocol="rest", users=1)
    assert KEY not in again
    assert "kept in" in again
    assert "1 user in the store" in again


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
