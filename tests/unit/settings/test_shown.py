"""Settings as they may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.settings import load
from pgnode.settings.shown import api_addresses, shorten, shown_settings, shown_url


def test_secrets_are_hidden(tmp_path: Path) -> None:
    key = "7e3b1a52-1111-4222-8333-444455556666"
    settings = load(state_dir=str(tmp_path), api_key=key, redis_url="redis://user:hunter2@192.0.2.1/0", debug=True)
    shown = shown_settings(settings)
    assert (shown["API_KEY"], shown["REDIS_URL"]) == ("(set)", "redis://user:…@192.0.2.1/0")
    assert (shown["STATE_DIR"], shown["DEBUG"], shown["SSL_KEY_FILE"]) == (str(tmp_path), True, None)
    assert "hunter2" not in str(shown)
    assert key not in str(shown)


def test_addresses_of_the_api(tmp_path: Path) -> None:
    both = load(state_dir=str(tmp_path), node_host="::", service_protocol="both")
    assert api_addresses(both) == ["REST [::]:62050", "gRPC [::]:62052", "maintenance [::]:62051"]
    rest = load(state_dir=str(tmp_path), node_host="192.0.2.1", service_protocol="rest")
    assert api_addresses(rest) == ["REST 192.0.2.1:62050", "maintenance 192.0.2.1:62051"]
    grpc = load(state_dir=str(tmp_path), service_protocol="grpc")
    assert api_addresses(grpc) == ["gRPC 0.0.0.0:62050", "maintenance 0.0.0.0:62051"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:pass@host", "redis://:…@host"),
        ("rediss://me:p@ss@host:1", "rediss://me:…@host:1"),
        ("redis://me@host", "redis://me@host"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("secretsecret", "secr…"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_a_short_secret_is_not_shown_at_all() -> None:
    assert (shorten("abcd"), shorten("abcde")) == ("…", "abcd…")
