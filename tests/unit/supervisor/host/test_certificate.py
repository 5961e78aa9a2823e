"""A certificate that cannot be served is told by name, and never takes the place of one that can."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from pgnode.errors import SettingsError
from pgnode.os_support.aio import end_tasks
from pgnode.settings import Settings, load
from pgnode.supervisor.host.certificate import CertificateWatch, check_pair
from tests.support.certificates import make_certificate
from tests.support.polling import eventually


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    cert, key = make_certificate(tmp_path, ["one.example"], [])
    (tmp_path / "state" / "run").mkdir(parents=True)
    return load(state_dir=tmp_path / "state", ssl_cert_file=cert, ssl_key_file=key)


def another(settings: Settings, name: str = "other") -> tuple[Path, Path]:
    folder = settings.cert_file.parent / name
    folder.mkdir()
    return make_certificate(folder, [name], [])


def of_another_key(settings: Settings) -> None:
    another(settings)[1].replace(settings.cert_key_file)


def swapped(settings: Settings) -> None:
    cert, key = settings.cert_file.read_bytes(), settings.cert_key_file.read_bytes()
    settings.cert_file.write_bytes(key)
    settings.cert_key_file.write_bytes(cert)


def private_key(settings: Settings) -> ec.EllipticCurvePrivateKey:
    found = serialization.load_pem_private_key(settings.cert_key_file.read_bytes(), None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found


def encrypted(settings: Settings) -> None:
    data = private_key(settings).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    settings.cert_key_file.write_bytes(data)


def key_as_der(settings: Settings) -> None:
    data = private_key(settings).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    settings.cert_key_file.write_bytes(data)


def certificate_as_der(settings: Settings) -> None:
    settings.cert_file.write_bytes(ssl.PEM_cert_to_DER_cert(settings.cert_file.read_text()))


def signed(
    settings: Settings, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *, days: float = 1, age_days: float = 0
) -> None:
    """Write a certificate that ends in ``days``, and its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=age_days))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    settings.cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    settings.cert_key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def too_weak(settings: Settings) -> None:
    signed(settings, rsa.generate_private_key(65537, 1024))


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (of_another_key, "SSL_KEY_FILE", "is the key of another certificate"),
        (swapped, "SSL_CERT_FILE", "are swapped"),
        (encrypted, "SSL_KEY_FILE", "is encrypted"),
        (key_as_der, "SSL_KEY_FILE", "DER"),
        (certificate_as_der, "SSL_CERT_FILE", "DER"),
        (too_weak, "SSL_CERT_FILE", "RSA keys need 2,048 bits"),
        (lambda s: s.cert_file.write_bytes(b"\n"), "SSL_CERT_FILE", "is empty"),
        (lambda s: s.cert_key_file.write_bytes(b""), "SSL_KEY_FILE", "is empty"),
        (lambda s: s.cert_file.write_bytes(b"\xff\x00 nonsense"), "SSL_CERT_FILE", "holds no certificate"),
        (lambda s: s.cert_key_file.write_bytes(b"nonsense"), "SSL_KEY_FILE", "holds no private key"),
        (lambda s: (s.cert_file.unlink(), s.cert_file.mkdir()), "SSL_CERT_FILE", "Is a directory"),
        (lambda s: s.cert_key_file.unlink(), "SSL_KEY_FILE", "No such file"),
    ],
)
def test_what_cannot_be_served_is_told_by_name(
    settings: Settings, spoil: Callable[[Settings], object], name: str, said: str
) -> None:
    spoil(settings)
    with pytest.raises(SettingsError, match=said) as found:
        CertificateWatch(settings).first()
    assert str(found.value).startswith(name)
    assert not settings.served_pem.exists()


def test_of_a_certificate_of_its_own_the_node_says_how_to_get_another(settings: Settings) -> None:
    own = settings.model_copy(update={"ssl_cert_file": None, "ssl_key_file": None})
    own.cert_file.parent.mkdir()
    own.cert_file.write_bytes(b"")
    with pytest.raises(SettingsError, match="delete both files: the node makes new ones"):
        check_pair(own)


def test_workers_get_a_pair_in_one_file(settings: Settings) -> None:
    watch = CertificateWatch(settings)
    watch.first()
    assert settings.served_pem.stat().st_mode & 0o777 == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.served_pem)
    before = settings.served_pem.stat().st_ino
    watch.first()
    assert settings.served_pem.stat().st_ino == before, "what is alike is not written again"
    assert repr(watch) == f"CertificateWatch({settings.cert_file})"


@pytest.mark.parametrize(("days", "said"), [(-1.0, "has expired"), (3.0, "expires soon"), (100.0, None)])
def test_the_end_of_a_certificate_is_told_before_it_comes(settings: Settings, days: float, said: str | None) -> None:
    signed(settings, ec.generate_private_key(ec.SECP256R1()), days=days, age_days=2)
    with structlog.testing.capture_logs() as lines:
        CertificateWatch(settings).first()
    assert [line["event"] for line in lines] == ([f"the certificate {said}"] if said else [])
    assert settings.served_pem.exists()


def test_what_is_replaced_is_taken_when_it_can_be_used(settings: Settings) -> None:
    watch = CertificateWatch(settings)
    watch.first()
    first = settings.served_pem.read_bytes()
    cert, key = another(settings)
    with structlog.testing.capture_logs() as lines:
        cert.replace(settings.cert_file)
        for _ in range(3):
            watch.look()
        assert [line["event"] for line in lines] == ["new certificate not taken, the one before stays"]
        assert "SSL_KEY_FILE" in lines[0]["error"]
        assert settings.served_pem.read_bytes() == first
        settings.cert_key_file.unlink()
        watch.look()
        key.replace(settings.cert_key_file)
        watch.look()
    assert lines[-1]["event"] == "new certificate taken"
    assert len([line for line in lines if line["log_level"] == "warning" and "not taken" in line["event"]]) == 1
    assert settings.served_pem.read_bytes() != first


def test_a_copy_that_cannot_be_written_leaves_the_one_before(settings: Settings) -> None:
    watch = CertificateWatch(settings)
    settings.served_pem.mkdir()
    with structlog.testing.capture_logs() as lines:
        watch.first()
    assert [line["event"] for line in lines if "handed" in line["event"]] == [
        "the certificate was not handed to the workers"
    ]


async def test_the_files_are_followed(settings: Settings) -> None:
    watch = CertificateWatch(settings, check_seconds=0.01)
    watch.first()
    first = settings.served_pem.read_bytes()
    following = asyncio.create_task(watch.run())
    for new, old in zip(another(settings), (settings.cert_file, settings.cert_key_file), strict=True):
        new.replace(old)
    await eventually(lambda: settings.served_pem.read_bytes() != first, "the new pair is handed to the workers", 30)
    await end_tasks([following])
