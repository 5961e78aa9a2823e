"""Certificates that a config names, and whether they can be served; with real files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from pgnode.xray.config.certificates import PEM_BYTES_MAX, certificate_fault
from pgnode.xray.config.inbounds import short
from tests.support.certificates import make_certificate


def inbound(certificate: object, key: object) -> dict[str, Any]:
    entry = {"certificateFile": certificate, "KeyFile": key}
    return {
        "streamSettings": {"tlsSettings": {"certificates": [{"usage": "verify"}, entry]}},
        "settings": {"clients": [entry]},
    }


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for folder in folders:
        make_certificate(folder, ["x.example"], [])
    return folders[0], folders[1]


def test_what_can_be_served(pairs: tuple[Path, Path]) -> None:
    cert, key = make_certificate(pairs[0], ["x.example"], [])
    assert certificate_fault(inbound(str(cert), str(key))) is None
    assert certificate_fault(inbound(cert.name, key.name), pairs[0]) is None
    assert certificate_fault(inbound(cert.name, key.name)) is None, "where the core looks is not known"
    assert certificate_fault({"clients": [{"keyFile": "/none"}]}) is None
    assert certificate_fault(inbound(5, None)) is None
    assert certificate_fault([None, 5, "x"]) is None


def test_what_cannot(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = make_certificate(pairs[0], ["x.example"], [])
    _, other = make_certificate(pairs[1], ["x.example"], [])
    assert (
        certificate_fault(inbound(str(cert), str(other)))
        == f"keyFile {short(str(other))} is the key of another certificate"
    )
    assert "give PEM files" in (certificate_fault(inbound(str(key), str(cert))) or "")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted = tmp_path / "e.pem"
    encrypted.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    assert "without a password" in (certificate_fault(inbound(str(cert), str(encrypted))) or "")


def test_what_is_no_file(tmp_path: Path) -> None:
    def fault(path: object) -> str | None:
        return certificate_fault(inbound(str(path), None))

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(PEM_BYTES_MAX + 1)
    assert fault("/none/c.pem") == "certificateFile '/none/c.pem' does not exist"
    assert (fault(tmp_path / "fifo") or "").endswith("is no regular file")
    assert (fault("/dev/zero") or "").endswith("is no regular file")
    assert (fault(tmp_path) or "").endswith("is no regular file")
    assert "cannot be read: " in (fault(tmp_path / "loop") or "")
    assert "cannot be read: " in (fault("/a\0b") or "")
    assert "has more than" in (fault(tmp_path / "huge") or "")
