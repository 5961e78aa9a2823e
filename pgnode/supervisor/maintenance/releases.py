"""Releases of the core: names, addresses and digests, in the layout of XTLS/Xray-core's GitHub releases. Pure.

Under the address of the releases, ``latest`` redirects to ``tag/v26.10.10``, and ``download/v26.10.10/`` holds a zip for each
kind of machine with the executable ``xray`` in it, and beside each zip a ``.dgst`` file with lines of ``openssl dgst`` without
the file's name, such as ``SHA2-256= 4d30…`` (xray-core ``.github/workflows/release.yml``; older ones say ``SHA256=``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from pgnode.errors import UnsupportedError, UpdateFailedError

#: Name of the executable in a zip.
MEMBER: Final = "xray"

_ASSETS: Final = {
    "x86_64": "Xray-linux-64.zip",
    "amd64": "Xray-linux-64.zip",
    "aarch64": "Xray-linux-arm64-v8a.zip",
    "arm64": "Xray-linux-arm64-v8a.zip",
}

Algorithm = Literal["sha512", "sha256"]

_DIGEST_LINE = re.compile(r"SHA(?:2-)?(256|512)\s*(?:\([^)]*\))?\s*=\s*([0-9a-f]+)", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r"/tag/v?(\d{1,4}\.\d{1,4}\.\d{1,4})/?(?:[?#].*)?", re.ASCII)
_HEX_CHARACTERS: Final = {"256": 64, "512": 128}


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file's digest has to be."""

    algorithm: Algorithm
    hexadecimal: str


def asset_name(machine: str) -> str:
    """Return the zip for a machine as ``platform.machine()`` names it. Raises UnsupportedError for others."""
    try:
        return _ASSETS[machine.lower()]
    except KeyError:
        raise UnsupportedError(
            f"no core for this machine ({machine}): releases are taken for {', '.join(_ASSETS)}; set XRAY_EXECUTABLE_PATH"
        ) from None


def asset_url(releases_url: str, version: str, asset: str) -> str:
    """Return the address of a release's zip."""
    return f"{releases_url}/download/v{version}/{asset}"


def latest_url(releases_url: str) -> str:
    """Return the address that redirects to the latest release."""
    return f"{releases_url}/latest"


def version_of_tag(url: str) -> str | None:
    """Return the version in the address of a tag's page, None where it is none."""
    found = _TAG.search(url)
    return found[1] if found is not None and found.end() == len(url) else None


def digest_of(text: str) -> Digest:
    """Return the strongest digest that a ``.dgst`` file names. Raises UpdateFailedError when there is none."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _DIGEST_LINE.fullmatch(line.strip())
        if match is not None and len(match[2]) == _HEX_CHARACTERS[match[1]]:
            found.setdefault(match[1], match[2].lower())
    if "512" in found:
        return Digest("sha512", found["512"])
    if "256" in found:
        return Digest("sha256", found["256"])
    raise UpdateFailedError(
        "the release's .dgst file names no SHA2-256 and no SHA2-512: the download cannot be checked"
    )


def sum_of(text: str) -> Digest | None:
    """Return the digest in a ``.sha256sum`` file (``<hex>  <name>``), None where it holds none."""
    words = text.split()
    if words and re.fullmatch(r"[0-9a-fA-F]{64}", words[0], re.ASCII):
        return Digest("sha256", words[0].lower())
    return None
