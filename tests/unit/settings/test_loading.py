"""Settings: names, defaults, and sentences for wrong values."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.settings import load, load_from, unknown_settings


def test_defaults_are_those_of_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load()
    assert (settings.service_port, settings.node_host, settings.max_body_mib) == (62050, "0.0.0.0", 64)
    assert settings.redis_url is None
    assert settings.bus_url == "unix:///tmp/pgn-settings/run/valkey.sock"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SERVICE_PORT", "0", "allowed is 1 and more"),
        ("SERVICE_PORT", "http", "allowed is a whole number"),
        ("NODE_HOST", "localhost", "IPv4 or IPv6"),
        ("SERVICE_PROTOCOL", "carrier-pigeon", "'rest'"),
        ("REDIS_URL", "http://x", "redis://"),
        ("XRAY_EXECUTABLE_PATH", "/nowhere/xray", "executable"),
        ("XRAY_ASSETS_PATH", "/nowhere", "existing folder"),
        ("GUNICORN_CONF", "/nowhere.py", "existing file"),
        ("API_PORT", "62050", "SERVICE_PORT is the same"),
        ("GRPC_PORT", "62050", "SERVICE_PORT is the same"),
        ("GRPC_PORT", "62051", "API_PORT is the same"),
        ("METRICS_PORT", "62051", "API_PORT is the same"),
        ("METRICS_KEY", "short", "METRICS_KEY=shor… is not allowed"),
        ("GRPC_HEALTH", "perhaps", "'open'"),
        ("GRPC_WORKERS", "-1", "allowed is 0 and more"),
        ("GRPC_REFLECTION", "perhaps", "allowed is true or false"),
        ("CORE_RELEASES_URL", "ftp://x", "https://"),
        ("GEOFILES_IRAN_URL", "here", "https://"),
        ("UPDATE_COMMAND", "update 'it", "No closing quotation"),
        ("UPDATE_COMMAND", " ", "unset it"),
        ("MAX_BODY_MIB", "0", "allowed is 1 and more"),
        ("STATS_UPDATE_INTERVAL_SECONDS", "never", "allowed is a number"),
        ("REDIS_PREFIX", "a b", "without blanks"),
        ("DEBUG", "perhaps", "allowed is true or false"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(f"{name}=")
    assert words in str(caught.value)


def test_an_api_key_that_is_no_uuid_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "correct horse battery staple")
    with pytest.raises(SettingsError) as caught:
        load()
    assert "UUID" in str(caught.value)
    assert "battery" not in str(caught.value)


@pytest.mark.parametrize("spelled", ["{5783A3E7-E373-51CD-8642-C83782B807C5}", "5783a3e7e37351cd8642c83782b807c5"])
def test_an_api_key_in_any_spelling(monkeypatch: pytest.MonkeyPatch, spelled: str) -> None:
    monkeypatch.setenv("API_KEY", spelled)
    assert load().api_key == "5783a3e7-e373-51cd-8642-c83782b807c5"


def test_an_empty_api_key_is_no_key_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "")
    assert load().api_key is None, "then the node makes one"


def test_the_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SERVICE_PORT=1234\nWEB_CONCURRENCY=7\n")
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    settings = load()
    assert (settings.service_port, settings.web_concurrency) == (1234, 3)


def test_openssls_list_of_authorities_is_no_certificate_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    assert load().ssl_cert_file is None


def test_a_key_without_a_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_KEY_FILE", "/x/key.pem")
    with pytest.raises(SettingsError, match="SSL_CERT_FILE is not set but SSL_KEY_FILE is"):
        load()


def test_a_pair_has_to_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    monkeypatch.setenv("SSL_KEY_FILE", str(tmp_path / "key.pem"))
    with pytest.raises(SettingsError, match=r"SSL_KEY_FILE=.*no such file"):
        load()


@pytest.mark.parametrize("name", ["\udcff", "a,b", "a%20b", "a?b", "a#b"])
def test_a_folder_that_no_address_of_a_socket_can_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIR", f"/tmp/{name}")
    with pytest.raises(SettingsError, match=r"STATE_DIR=/tmp/.* holds '.*', which no address of its sockets can have"):
        load()


def test_a_folder_too_deep_for_unix_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIR", "/" + "deep/" * 30)
    with pytest.raises(SettingsError, match="too long"):
        load()


def test_grpc_alone_needs_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PROTOCOL", "grpc")
    monkeypatch.setenv("GRPC_WORKERS", "0")
    with pytest.raises(SettingsError, match="nothing would be served"):
        load()


def test_a_node_without_workers_needs_a_redis_that_others_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PROTOCOL", "none")
    monkeypatch.delenv("REDIS_URL", raising=False)
    with pytest.raises(SettingsError, match="not allowed without REDIS_URL: nothing would be served"):
        load()
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9/0")
    assert load().gunicorn_ports == {}


def test_a_value_of_the_file_is_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("SERVICE_PORT=none\nAPI_PORT=none\n")
    monkeypatch.setenv("API_PORT", "neither")
    with pytest.raises(SettingsError) as caught:
        load()
    service, api = str(caught.value).splitlines()
    assert service.startswith("SERVICE_PORT=none in .env is not allowed: ")
    assert api.startswith("API_PORT=neither is not allowed: ")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SERVICE_PORT 62050\n", "SERVICE_PORT"),
        ('API_KEY="5783a3e7\nAPI_PORT=1\n', "API_KEY"),
        ("REDIS_URL: x\n", "REDIS_URL"),
    ],
)
def test_a_line_about_a_setting_that_sets_nothing_is_refused(
    text: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named.env").write_text(f"# A remark.\n{text}")
    with pytest.raises(
        SettingsError, match=rf"line 2 of .*/named\.env is about {name} and sets nothing: write {name}=VALUE"
    ):
        load_from(tmp_path / "named.env")
    (tmp_path / "named.env").rename(tmp_path / ".env")
    with pytest.raises(SettingsError, match=rf"line 2 of .*/\.env is about {name}") as caught:
        load()
    # It may be a secret.
    assert "5783a3e7" not in str(caught.value)


def test_a_line_that_is_nothing_at_all_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("some words\n")
    (tmp_path / "named.env").write_text("SERVICE_PORT=1\nMINE 1\n")
    assert load_from(tmp_path / "named.env").service_port == 1
    assert unknown_settings(tmp_path / "named.env") == [
        f"line 1 of {tmp_path}/.env sets nothing: write NAME=VALUE",
        f"line 2 of {tmp_path}/named.env sets nothing: write NAME=VALUE",
    ]


def test_names_that_are_no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("MINE=1\n")
    monkeypatch.setenv("WEB_CONCURENCY", "3")
    assert unknown_settings() == [
        "MINE in .env means nothing here",
        "WEB_CONCURENCY in the environment means nothing here: did you mean WEB_CONCURRENCY?",
    ]


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("~nobody-of-that-name/x", "home directory"),
        ("/tmp/a\nb", r"STATE_DIR='/tmp/a\\nb' is not allowed: it holds a control"),
    ],
)
def test_a_state_folder_that_cannot_be_one(monkeypatch: pytest.MonkeyPatch, folder: str, said: str) -> None:
    monkeypatch.setenv("STATE_DIR", folder)
    with pytest.raises(SettingsError, match=said):
        load()


def test_an_empty_state_folder_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIR", "")
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert load().state_dir == Path("/x/pgnode")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError

    monkeypatch.delenv("STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(SettingsError, match="no home folder: set STATE_DIR"):
        load()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WEB_CONCURRENCY", "three", "a whole number"),
        ("WEB_CONCURRENCY", "0", "1 and more"),
        ("SERVICE_PORT", "70000", "65535 at most"),
        ("STATS_UPDATE_INTERVAL_SECONDS", "soon", "a number"),
        ("STATS_UPDATE_INTERVAL_SECONDS", "0.1", "0.2 and more"),
        ("DEBUG", "maybe", "true or false"),
        ("LOG_FORMAT", "xml", "'text', 'json' or 'auto'"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_what_is_allowed_is_said_in_one_voice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == f"{name}={value} is not allowed: allowed is {allowed}"
