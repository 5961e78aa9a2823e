"""Small geo files in the core's format, written field by field (xray-core ``common/geodata/geodat.proto``)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path

from pgnode.wire import varint


def _number(number: int, value: int) -> bytes:
    return bytes([number << 3]) + varint.encode(value)


def write_geosite(path: Path, sites: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """``sites``: code to (domain, attribute); each domain with everything below it; an empty attribute is none."""
    entries = []
    for code, domains in sites.items():
        parts = [varint.field(1, code.upper().encode())]
        for domain, attribute in domains:
            marked = varint.field(3, varint.field(1, attribute.encode()) + _number(2, 1)) if attribute else b""
            parts.append(varint.field(2, _number(1, 2) + varint.field(2, domain.encode()) + marked))
        entries.append(varint.field(1, b"".join(parts)))
    path.write_bytes(b"".join(entries))


def write_geoip(path: Path, networks: Mapping[str, Sequence[str]]) -> None:
    """``networks``: code to networks such as "203.0.113.0/24"."""
    entries = []
    for code, listed in networks.items():
        parts = [varint.field(1, code.upper().encode())]
        for text in listed:
            network = ipaddress.ip_network(text)
            parts.append(
                varint.field(2, varint.field(1, network.network_address.packed) + _number(2, network.prefixlen))
            )
        entries.append(varint.field(1, b"".join(parts)))
    path.write_bytes(b"".join(entries))
