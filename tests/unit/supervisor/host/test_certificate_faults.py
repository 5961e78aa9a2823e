"""What is wrong with a pair; tests of :mod:`pgnode.supervisor.host.certificate` have each fault as an operator sees it."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from pgnode.errors import SettingsError
from pgnode.settings import Settings, load
from pgnode.supervisor.host.certificate_faults import explain
from tests.support.certificates import make_certificate
from tests.unit.supervisor.host.test_certificate import (
    certificate_as_der,
    encrypted,
    key_as_der,
    of_another_key,
    too_weak,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    cert, key = make_certificate(tmp_path, ["one.example"], [])
    return load(state_dir=tmp_path / "state", ssl_cert_file=cert, ssl_key_file=key)


def explained(settings: Settings) -> datetime.datetime:
    cert, key = settings.cert_file.read_bytes(), settings.cert_key_file.read_bytes()
    return explain(settings, ("CERT", cert), ("KEY", key), ", or leave it")


def test_where_nothing_is_wrong_the_end_is_known(settings: Settings) -> None:
    certificate = x509.load_pem_x509_certificate(settings.cert_file.read_bytes())
    assert explained(settings) == certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_another_key, "KEY is the key of another certificate than CERT"),
        (encrypted, "KEY is encrypted"),
        (key_as_der, "KEY is in the DER format"),
        (certificate_as_der, "CERT is in the DER format"),
        (too_weak, "CERT is refused by OpenSSL"),
        (lambda s: s.cert_file.write_bytes(b"nonsense"), "CERT holds no certificate"),
        (lambda s: s.cert_key_file.write_bytes(b"nonsense"), "KEY holds no private key"),
    ],
)
def test_each_fault_is_named(settings: Settings, spoil: Callable[[Settings], object], said: str) -> None:
    spoil(settings)
    with pytest.raises(SettingsError, match=said) as found:
        explained(settings)
    assert str(found.value).endswith(", or leave it")
