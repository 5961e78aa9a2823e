"""What follows from the settings: folders, files, ports."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.settings.model import Settings


def made(**values: object) -> Settings:
    return Settings(state_dir=Path("/s"), **values)  # type: ignore[arg-type]


def test_everything_is_below_the_state_folder_unless_named() -> None:
    settings = made()
    assert settings.run_dir == Path("/s/run")
    assert settings.assets_dir == Path("/s/assets")
    assert settings.key_file == Path("/s/api_key")
    assert (settings.cert_file, settings.cert_key_file) == (Path("/s/tls/cert.pem"), Path("/s/tls/key.pem"))
    assert settings.core_socket == Path("/s/run/core.sock")
    assert settings.core_scratch_socket == Path("/s/run/core.scratch.sock")
    assert settings.bus_url == "unix:///s/run/valkey.sock"
    named = made(
        api_key_file="/k", ssl_cert_file="/c", ssl_key_file="/p", xray_assets_path="/usr", redis_url="redis://r"
    )
    assert (named.key_file, named.cert_file, named.cert_key_file) == (Path("/k"), Path("/c"), Path("/p"))
    assert (named.assets_dir, named.bus_url) == (Path("/usr"), "redis://r")


@pytest.mark.parametrize(
    ("protocol", "gunicorn", "grpc", "workers"),
    [
        ("both", {"SERVICE_PORT": 62050, "API_PORT": 62051}, ("GRPC_PORT", 62052), 1),
        ("rest", {"SERVICE_PORT": 62050, "API_PORT": 62051}, ("GRPC_PORT", 62052), 0),
        ("grpc", {"API_PORT": 62051}, ("SERVICE_PORT", 62050), 1),
        ("none", {}, ("GRPC_PORT", 62052), 0),
    ],
)
def test_ports_follow_the_protocol(
    protocol: str, gunicorn: dict[str, int], grpc: tuple[str, int], workers: int
) -> None:
    settings = made(service_protocol=protocol)
    assert (settings.gunicorn_ports, settings.grpc_listen, settings.grpc_worker_count) == (gunicorn, grpc, workers)


def test_sizes_are_bytes() -> None:
    assert made(max_body_mib=2).max_body_bytes == 2 * 1024 * 1024
