"""What TLS to Redis is made of: read once, and again when a file was replaced."""

from __future__ import annotations

import inspect
import ssl
from pathlib import Path
from typing import Any

import pytest

from pgnode.bus.tls import SharingTls
from tests.support.certificates import make_certificate


def connection(pair: tuple[Path, Path], **more: Any) -> SharingTls:
    certificate, key = map(str, pair)
    return SharingTls(
        host="localhost",
        port=1,
        ssl_ca_certs=certificate,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        **more,
    )


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path, ["localhost"], [])


def test_connections_of_the_same_settings_have_one_context(pair: tuple[Path, Path]) -> None:
    one, another = connection(pair), connection(pair)
    assert one.ssl_context.get() is another.ssl_context.get()
    assert one.ssl_context.get() is not connection(pair, ssl_check_hostname=False).ssl_context.get()
    assert one.ssl_context.get() is not SharingTls(host="localhost", port=1).ssl_context.get()


def test_a_file_that_was_replaced_is_read_again(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = connection(pair).ssl_context.get()
    other = tmp_path / "other"
    other.mkdir()
    for new, path in zip(make_certificate(other, ["localhost"], []), pair, strict=True):
        new.replace(path)
    after = connection(pair).ssl_context.get()
    assert after is not before
    assert len(after.get_ca_certs()) > 0


def test_a_file_that_is_missing_is_an_error_of_the_connection(tmp_path: Path) -> None:
    made = connection((tmp_path / "no.pem", tmp_path / "no.key"))
    with pytest.raises(FileNotFoundError):
        made.ssl_context.get()


def test_what_is_shared_is_all_that_the_library_makes_a_context_of(pair: tuple[Path, Path]) -> None:
    shared = connection(pair).ssl_context
    arguments = inspect.signature(type(shared)).parameters
    assert {*arguments, "context"} == set(type(shared).__slots__)
    flags = [ssl.VerifyFlags.VERIFY_X509_STRICT]
    strict = connection(pair, ssl_include_verify_flags=flags).ssl_context
    assert strict is not shared
    assert strict.get().verify_flags & ssl.VerifyFlags.VERIFY_X509_STRICT
