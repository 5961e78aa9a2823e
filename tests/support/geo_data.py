"""Small geoip.dat and geosite.dat files, encoded by hand, so that they check the node's own reading of them.

The core looks for codes in capitals, however a config spells them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from pgnode.wire import varint

#: ``Domain.Type.Domain``: the name and everything below it (xray-core ``common/geodata/geodat.proto``).
_TYPE_DOMAIN = 2


def geoip(codes: Mapping[str, Sequence[str]]) -> bytes:
    """Code -> networks."""
    entries = []
    for code, networks in codes.items():
        parts = [varint.field(1, code.upper().encode())]
        for text in networks:
            network = ipaddress.ip_network(text)
            parts.append(
                varint.field(
                    2, varint.field(1, network.network_address.packed) + b"\x10" + varint.encode(network.prefixlen)
                )
            )
        entries.append(varint.field(1, b"".join(parts)))
    return b"".join(entries)


def geosite(codes: Mapping[str, Sequence[str]]) -> bytes:
    """Code -> domains."""
    entries = []
    for code, domains in codes.items():
        parts = [varint.field(1, code.upper().encode())]
        parts += [
            varint.field(2, b"\x08" + varint.encode(_TYPE_DOMAIN) + varint.field(2, domain.encode()))
            for domain in domains
        ]
        entries.append(varint.field(1, b"".join(parts)))
    return b"".join(entries)
