"""What the Go node's settings mean here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.cli.go_node import ASSETS, CERTIFICATE, PRIVATE_KEY, Line, as_json, settings_text, translate
from pgnode.settings import load_from
from pgnode.settings.env_file import values_in_env_file

KEY = "2f1d7f0e-98a2-4a27-8f52-6a0f2f3f9b11"


def of(values: dict[str, str], *files: str) -> dict[str, Line]:
    return {line.name: line for line in translate(values, lambda path: path in files)}


def settings(values: dict[str, str], *files: str) -> dict[str, str]:
    return dict(pair for line in of(values, *files).values() for pair in line.settings)


def test_a_usual_file_without_the_old_machine() -> None:
    found = of({"SERVICE_PORT": "62050", "NODE_HOST": "0.0.0.0", "API_KEY": KEY, "SERVICE_PROTOCOL": "rest"})
    assert {name for name, line in found.items() if line.verdict == "same"} == {
        "SERVICE_PORT",
        "NODE_HOST",
        "API_KEY",
        "SERVICE_PROTOCOL",
    }
    assert "makes one" in found["SSL_CERT_FILE"].text
    assert found["SSL_CERT_FILE"].settings == found["XRAY_EXECUTABLE_PATH"].settings == ()
    assert "assets" in found["XRAY_ASSETS_PATH"].text


def test_defaults_of_the_go_node_that_are_on_the_machine_are_named() -> None:
    assert settings({"SERVICE_PORT": "1"}, CERTIFICATE, PRIVATE_KEY, ASSETS) == {
        "SERVICE_PORT": "1",
        "SERVICE_PROTOCOL": "grpc",
        "SSL_CERT_FILE": CERTIFICATE,
        "SSL_KEY_FILE": PRIVATE_KEY,
        "XRAY_ASSETS_PATH": ASSETS,
    }


@pytest.mark.parametrize(
    ("value", "wanted", "verdict"),
    [(None, "grpc", "differs"), ("grpc", "grpc", "same"), ("rest", "rest", "same"), ("REST", "grpc", "differs")],
)
def test_the_protocol_is_grpc_but_for_rest(value: str | None, wanted: str, verdict: str) -> None:
    line = of({} if value is None else {"SERVICE_PROTOCOL": value})["SERVICE_PROTOCOL"]
    assert (line.settings, line.verdict) == ((("SERVICE_PROTOCOL", wanted),), verdict)


def test_ports() -> None:
    assert settings({"SERVICE_PORT": "62051"})["API_PORT"] == "62052"
    assert "SERVICE_PORT" not in settings({"SERVICE_PORT": "many"})
    assert "it stays 62050" in of({"SERVICE_PORT": "70000"})["SERVICE_PORT"].text


def test_addresses() -> None:
    assert settings({"NODE_HOST": "192.168.001.2"})["NODE_HOST"] == "192.168.1.2"
    assert settings({"NODE_HOST": "::"})["NODE_HOST"] == "127.0.0.1"
    assert "IPv6" in of({"NODE_HOST": "::"})["NODE_HOST"].text


def test_keys() -> None:
    assert settings({"API_KEY": KEY.replace("-", "").upper()})["API_KEY"] == KEY
    assert "API_KEY" not in settings({"API_KEY": "xxxxxxxx-yyyy"})
    assert "xxxxxxxx" not in of({"API_KEY": "xxxxxxxx-yyyy"})["API_KEY"].text, "it may be a secret"
    assert "prints it" in of({})["API_KEY"].text


def test_a_certificate_that_is_named_and_not_there() -> None:
    found = of({"SSL_CERT_FILE": "/certs/a.pem"}, PRIVATE_KEY)
    assert "a start is refused" in found["SSL_CERT_FILE"].text
    assert "default" in found["SSL_KEY_FILE"].text
    assert found["SSL_KEY_FILE"].settings == (("SSL_KEY_FILE", PRIVATE_KEY),)


def test_the_core() -> None:
    path = "/opt/xray"
    assert settings({"XRAY_EXECUTABLE_PATH": path}, path)["XRAY_EXECUTABLE_PATH"] == path
    assert "XRAY_EXECUTABLE_PATH" not in settings({"XRAY_EXECUTABLE_PATH": path})
    assert settings({"XRAY_ASSETS_PATH": path}, path)["XRAY_ASSETS_PATH"] == path


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("DEBUG", "T", "true"),
        ("DEBUG", "0", "false"),
        ("DEBUG", "yes", None),
        ("GENERATED_CONFIG_PATH", "/var/lib/pg-node/generated", "/var/lib/pg-node/generated"),
        ("LOG_BUFFER_SIZE", "500", "500"),
        ("LOG_BUFFER_SIZE", "-1", "100"),
        ("LOG_BUFFER_SIZE", "9999999", "1000000"),
        ("LOG_BUFFER_SIZE", "a", None),
        ("STARTUP_LOG_TAIL_SIZE", "50", "50"),
        ("STARTUP_LOG_TAIL_SIZE", "0", "200"),
        ("STARTUP_LOG_TAIL_SIZE", "5000", "1000"),
        ("STARTUP_LOG_TAIL_SIZE", "a", "200"),
        ("HTTPS_PROXY", "http://127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("STATS_UPDATE_INTERVAL_SECONDS", "10", None),
        ("STATS_CLEANUP_INTERVAL_SECONDS", "300", None),
        ("PG_NODE_WG_HOST_ROUTING", "1", None),
        ("PG_NODE_WG_NAT_OUTPUT_INTERFACE", "eth0", None),
        ("PG_NODE_WG_NAT_EGRESS_ONLY", "0", None),
        ("INSTALL_MODE", "docker", None),
    ],
)
def test_everything_else(name: str, value: str, wanted: str | None) -> None:
    found = of({name: value})
    assert settings({name: value}).get(name) == wanted
    assert found[name].verdict == "same" or found[name].text, "what is not the same is explained"


def test_the_file_is_one_that_the_node_takes(tmp_path: Path) -> None:
    values = {
        "SERVICE_PORT": "62051",
        "API_KEY": KEY,
        "LOG_BUFFER_SIZE": "0",
        "DEBUG": "1",
        "PG_NODE_WG_HOST_ROUTING": "1",
    }
    path = tmp_path / "new.env"
    path.write_text(settings_text(translate(values, lambda _: False), "old\n.env"))
    loaded = load_from(path, state_dir=str(tmp_path))
    assert (loaded.service_port, loaded.api_port, loaded.service_protocol, loaded.debug) == (62051, 62052, "grpc", True)
    assert path.read_text().startswith("# Settings of pgnode, made from old?.env.\n")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029"), max_size=30))
def test_a_value_is_read_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_text(settings_text(translate({"GENERATED_CONFIG_PATH": value}, lambda _: False), "x"), encoding="utf-8")
    assert values_in_env_file(path)["GENERATED_CONFIG_PATH"] == value


def test_for_programs() -> None:
    found = as_json(translate({"SERVICE_PORT": "443", "PG_NODE_WG_HOST_ROUTING": "1"}, lambda _: False))
    assert found["settings"] == {"SERVICE_PORT": "443", "SERVICE_PROTOCOL": "grpc"}
    assert found["variables"]["PG_NODE_WG_HOST_ROUTING"]["verdict"] == "nothing"
