"""When a certificate ends, beside what the library for all of X.509 says."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.host.certificate_end import end_of

KEY = ec.generate_private_key(ec.SECP256R1())
BEGIN = datetime.datetime(1951, 2, 3, tzinfo=datetime.UTC)


def certificate(ends: datetime.datetime, name: str = "tests", serial: int = 1) -> bytes:
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder(named, named, KEY.public_key(), serial)
        .not_valid_before(BEGIN)
        .not_valid_after(ends)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


@given(
    st.integers(1, 250_000_000_000),
    st.text("abc", min_size=1, max_size=64),
    st.integers(1, 2**159 - 1),
)
def test_any_end(seconds: int, name: str, serial: int) -> None:
    der = certificate(BEGIN + datetime.timedelta(seconds=seconds), name, serial)
    assert end_of(der) == x509.load_der_x509_certificate(der).not_valid_after_utc


WHOLE = certificate(datetime.datetime(2049, 12, 31, tzinfo=datetime.UTC))


def test_what_is_no_certificate() -> None:
    for odd in (b"", b"\x30", b"\x30\x80", b"\x30\x85\0\0\0\0\1x", b"\x31" + WHOLE[1:]):
        with pytest.raises(ValueError, match=r".+"):
            end_of(odd)
    for at in range(len(WHOLE)):
        with pytest.raises(ValueError, match=r".+"):
            end_of(WHOLE[:at])


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_that_are_spoilt_are_a_date_or_a_value_error(spoilt: list[tuple[int, int]]) -> None:
    whole = bytearray(WHOLE)
    for at, byte in spoilt:
        whole[at % len(whole)] = byte
    try:
        found = end_of(bytes(whole))
    except ValueError:
        return
    assert found.tzinfo is datetime.UTC
