"""Small geoip.dat and geosite.dat files, encoded by hand, so that they check the node's own reading of them.

The core looks for codes in capitals, however a config spells them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

#: ``Domain.Type.Domain``: the name and everything below it (xray-core ``common/geodata/geodat.proto``).
_TYPE_DOMAIN = 2


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def geoip(codes: Mapping[str, Sequence[str]]) -> bytes:
    """Code -> networks."""
    entries = []
    for code, networks in codes.items():
        parts = [_field(1, code.upper().encode())]
        for text in networks:
            network = ipaddress.ip_network(text)
            parts.append(_field(2, _field(1, network.network_address.packed) + b"\x10" + _varint(network.prefixlen)))
        entries.append(_field(1, b"".join(parts)))
    return b"".join(entries)


def geosite(codes: Mapping[str, Sequence[str]]) -> bytes:
    """Code -> domains."""
    entries = []
    for code, domains in codes.items():
        parts = [_field(1, code.upper().encode())]
        parts += [_field(2, b"\x08" + _varint(_TYPE_DOMAIN) + _field(2, domain.encode())) for domain in domains]
        entries.append(_field(1, b"".join(parts)))
    return b"".join(entries)
