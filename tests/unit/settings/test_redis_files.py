"""What is set beside REDIS_URL: it fits the address, its files can be used, and each fault is a sentence without a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from pgnode.errors import SettingsError
from pgnode.settings import load
from pgnode.settings.redis_address import PASSWORD_FILE, parse
from pgnode.settings.redis_files import read_password
from tests.support.certificates import make_certificate


def loaded(**values: object) -> Any:
    return load(state_dir="/tmp/pgn-settings", **{name: str(value) for name, value in values.items()})


def test_all_of_it_is_in_the_address_of_the_bus(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, ["r"], [])
    (tmp_path / "password").write_text("hunter2\n")
    settings = loaded(
        redis_url="rediss+sentinel://s/main",
        redis_user="node",
        redis_password_file=tmp_path / "password",
        redis_ca_file=certificate,
        redis_cert_file=certificate,
        redis_key_file=key,
        redis_sentinel_password="hunter3",
    )
    found = parse(settings.bus_url)
    assert found.part(PASSWORD_FILE) == str(tmp_path / "password")
    assert found.part("sentinel_password") == "hunter3"
    assert "username=node" in found.url
    assert "ssl_ca_certs=" in found.url
    assert "hunter2" not in settings.bus_url
    assert settings.bus_prefix == "pgnode"
    assert loaded(redis_url="redis+cluster://a").bus_prefix == "{pgnode}"


def test_the_password_is_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text("one two\nthree\n")
    assert read_password(path) == "one two"
    for text in (b"", b"\nx", b"\xff"):
        path.write_bytes(text)
        with pytest.raises(OSError, match=str(path)):
            read_password(path)


URL = {"redis_url": "redis://h"}
TLS = {"redis_url": "rediss://h"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"redis_user": "x"}, "REDIS_USER is set, but REDIS_URL is not"),
        (
            {"redis_url": "redis://:secret@h", "redis_password": "secret"},
            r"REDIS_PASSWORD is set, and REDIS_URL=redis://:…@h names a user or a password as well",
        ),
        ({**URL, "redis_password": "secret", "redis_password_file": "/x"}, "are both set"),
        ({**URL, "redis_user": "x"}, "REDIS_USER is set, but no password is"),
        ({**URL, "redis_password_file": "/nowhere"}, "REDIS_PASSWORD_FILE=/nowhere cannot be used: No such file"),
        ({**URL, "redis_sentinel_password": "secret"}, "REDIS_URL=redis://h names no sentinels"),
        ({**URL, "redis_ca_file": "/x"}, "REDIS_URL=redis://h speaks no TLS: write rediss"),
        ({**TLS, "redis_cert_file": "/x"}, "REDIS_CERT_FILE is set, but REDIS_KEY_FILE is not"),
        ({**TLS, "redis_key_file": "/x"}, "REDIS_KEY_FILE is set, but REDIS_CERT_FILE is not"),
        ({**TLS, "redis_ca_file": "/nowhere"}, "REDIS_CA_FILE=/nowhere cannot be used: No such file"),
        (
            {**TLS, "redis_ca_file": "/etc/hostname"},
            "REDIS_CA_FILE=/etc/hostname cannot be used: it is no such PEM file",
        ),
        (
            {**TLS, "redis_cert_file": "/nowhere", "redis_key_file": "/x"},
            "REDIS_CERT_FILE=/nowhere cannot be used: No such file",
        ),
    ],
)
def test_each_fault_is_a_sentence(values: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        loaded(**values)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_not_the_certificates_or_asks_for_a_password(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    (certificate, key), (_, other) = (make_certificate(folder, ["r"], []) for folder in folders)
    with pytest.raises(SettingsError, match="cannot be used: key values mismatch"):
        loaded(**TLS, redis_cert_file=certificate, redis_key_file=other)
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(SettingsError, match="a certificate and its key, without a password"):
        loaded(**TLS, redis_cert_file=certificate, redis_key_file=key)
