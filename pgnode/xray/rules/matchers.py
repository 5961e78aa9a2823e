"""One entry of a rule's condition: a domain, an address or a network, as the core's message of it.

Geo data are named by file and code; the core looks them up itself. Everything here raises InvalidRequestError, its text begun
by ``where``.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from pgnode.errors import InvalidRequestError
from pgnode.wire.texts import shown
from pgnode.xray.proto import geodata_pb2, network_pb2

#: What names geo data in a list of domains or of addresses; "geosite:x" and "geoip:x" are short for the usual files.
_SITE_PREFIXES: Final = ("ext:", "ext-site:", "ext-domain:")
_IP_PREFIXES: Final = ("ext:", "ext-ip:")

_DOMAIN_TYPES: Final = {
    "regexp:": geodata_pb2.Domain.Type.Regex,
    "domain:": geodata_pb2.Domain.Type.Domain,
    "full:": geodata_pb2.Domain.Type.Full,
    "keyword:": geodata_pb2.Domain.Type.Substr,
}
_NETWORKS: Final = {"tcp": network_pb2.TCP, "udp": network_pb2.UDP, "unix": network_pb2.UNIX}


def network(name: str, where: str, strict: bool) -> network_pb2.Network:
    """Compile one network; the core takes an unknown one for one that nothing uses, ``strict`` refuses it."""
    found = _NETWORKS.get(name.lower())
    if found is None and strict:
        raise InvalidRequestError(f"{where}: unknown network {shown(name)}; known are {', '.join(_NETWORKS)}")
    return found if found is not None else network_pb2.Unknown


def domain_rule(text: str, where: str) -> geodata_pb2.DomainRule:
    """Compile one entry of a list of domains; without a prefix it is found anywhere in the domain."""
    named = _geo_reference(text, "geosite:", "geosite.dat", _SITE_PREFIXES)
    if named is not None:
        file, code = _file_and_code(named, text, where)
        code, _, attrs = code.partition("@")
        if not code or ("@" in named and "" in attrs.split("@")):
            raise InvalidRequestError(f"{where}: {shown(text)} has an empty code or attribute")
        return geodata_pb2.DomainRule(
            geosite=geodata_pb2.GeoSiteRule(file=file, code=code.upper(), attrs=attrs.lower())
        )
    for prefix, kind in _DOMAIN_TYPES.items():
        if text.startswith(prefix):
            return geodata_pb2.DomainRule(custom=geodata_pb2.Domain(type=kind, value=text.removeprefix(prefix)))
    if text.startswith("dotless:"):
        part = text.removeprefix("dotless:")
        if "." in part:
            raise InvalidRequestError(
                f"{where}: {shown(text)} is to be found in names without dots, and has one itself"
            )
        pattern = f"^[^.]*{part}[^.]*$" if part else "^[^.]*$"
        return geodata_pb2.DomainRule(custom=geodata_pb2.Domain(type=geodata_pb2.Domain.Type.Regex, value=pattern))
    return geodata_pb2.DomainRule(custom=geodata_pb2.Domain(type=geodata_pb2.Domain.Type.Substr, value=text))


def address_rule(text: str, where: str) -> geodata_pb2.IPRule:
    """Compile one entry of a list of addresses: an address, a network, or named geo data; each "!" in front turns it around."""
    bare = text.lstrip("!")
    reverse = (len(text) - len(bare)) % 2 == 1
    named = _geo_reference(bare, "geoip:", "geoip.dat", _IP_PREFIXES)
    if named is not None:
        file, code = _file_and_code(named, text, where)
        inner = code.lstrip("!")
        if not inner:
            raise InvalidRequestError(f"{where}: {shown(text)} has an empty code")
        reverse ^= (len(code) - len(inner)) % 2 == 1
        return geodata_pb2.IPRule(geoip=geodata_pb2.GeoIPRule(file=file, code=inner.upper(), reverse_match=reverse))
    ip, _, bits = bare.partition("/")
    try:
        address = ipaddress.ip_address(ip.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        raise InvalidRequestError(f"{where}: {shown(text)} is neither an address, a network nor geo data") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise InvalidRequestError(f"{where}: {shown(text)} has a zone, which no rule can match")
        # The core takes an IPv4-mapped address for the IPv4 one.
        address = address.ipv4_mapped or address
    prefix: int = address.max_prefixlen
    if bits:
        if not bits.isascii() or not bits.isdigit() or int(bits.lstrip("0")[:9] or 0) > address.max_prefixlen:
            raise InvalidRequestError(f"{where}: {shown(text)} has no prefix length from 0 to {address.max_prefixlen}")
        prefix = int(bits)
    cidr = geodata_pb2.CIDR(ip=address.packed, prefix=prefix)
    return geodata_pb2.IPRule(custom=geodata_pb2.CIDRRule(cidr=cidr, reverse_match=reverse))


def _geo_reference(text: str, usual: str, file: str, prefixes: tuple[str, ...]) -> str | None:
    """Return ``file:code`` of an entry that names geo data, None of any other."""
    if text.startswith(usual):
        return f"{file}:{text.removeprefix(usual)}"
    return next((text.removeprefix(prefix) for prefix in prefixes if text.startswith(prefix)), None)


def _file_and_code(named: str, text: str, where: str) -> tuple[str, str]:
    file, separator, code = named.partition(":")
    if not separator or not file:
        raise InvalidRequestError(f"{where}: {shown(text)} must name a file and a code, as in ext:file.dat:code")
    return file, code
