"""Names, digests and versions of releases."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import UnsupportedError, UpdateFailedError
from pgnode.supervisor.maintenance.releases import asset_name, asset_url, digest_of, sum_of, version_of_tag

SHA256, SHA512 = hashlib.sha256(b"x").hexdigest(), hashlib.sha512(b"x").hexdigest()


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "Xray-linux-64.zip"),
        ("AMD64", "Xray-linux-64.zip"),
        ("aarch64", "Xray-linux-arm64-v8a.zip"),
        ("arm64", "Xray-linux-arm64-v8a.zip"),
    ],
)
def test_the_zip_for_a_machine(machine: str, name: str) -> None:
    assert asset_name(machine) == name
    assert asset_url("https://h/releases", "26.10.10", name) == f"https://h/releases/download/v26.10.10/{name}"


def test_a_machine_without_releases() -> None:
    with pytest.raises(UnsupportedError, match=r"riscv64.*XRAY_EXECUTABLE_PATH"):
        asset_name("riscv64")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"MD5= 0\nSHA1= 1\nSHA2-256= {SHA256}\nSHA2-512= {SHA512}\n", ("sha512", SHA512)),
        (f"SHA2-256= {SHA256}\n", ("sha256", SHA256)),
        (f"SHA256= {SHA256.upper()}\n", ("sha256", SHA256)),
        (f"SHA2-256(./Xray-linux-64.zip)= {SHA256}\r\n", ("sha256", SHA256)),
        (f"SHA2-512= {SHA512[:-1]}\nSHA2-256= {SHA256}", ("sha256", SHA256)),
    ],
)
def test_digests(text: str, found: tuple[str, str]) -> None:
    digest = digest_of(text)
    assert (digest.algorithm, digest.hexadecimal) == found


@pytest.mark.parametrize("text", ["", "<html>", f"MD5= {SHA256}", f"SHA2-256= {SHA512}", f"{SHA256}", "SHA2-256= "])
def test_files_without_a_digest(text: str) -> None:
    with pytest.raises(UpdateFailedError, match="cannot be checked"):
        digest_of(text)


@given(st.text())
def test_any_text_is_a_digest_or_refused(text: str) -> None:
    with pytest.raises(UpdateFailedError):
        digest_of(text)
    assert sum_of(text) is None


def test_sums() -> None:
    found = sum_of(f"{SHA256}  geoip.dat\n")
    assert found is not None
    assert (found.algorithm, found.hexadecimal) == ("sha256", SHA256)
    assert sum_of(f"{SHA256.upper()} *geoip.dat") == found
    assert sum_of("not found") is sum_of("") is None


@pytest.mark.parametrize(
    ("url", "version"),
    [
        ("https://h/XTLS/Xray-core/releases/tag/v26.10.10", "26.10.10"),
        ("/releases/tag/26.10.10/", "26.10.10"),
        ("https://h/releases/tag/v26.10.10?expanded=true", "26.10.10"),
        ("https://h/releases/tag/v26.10.10-rc1", None),
        ("https://h/releases", None),
        ("https://h/tag/v26.10.10/other", None),
    ],
)
def test_versions_in_addresses(url: str, version: str | None) -> None:
    assert version_of_tag(url) == version
