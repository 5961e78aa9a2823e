"""Settings as they may be shown."""

from __future__ import annotations

from pathlib import Path

from pgnode.settings import load
from pgnode.settings.shown import api_addresses, shown_settings


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
