"""Entries of a rule's condition as messages of the core."""

from __future__ import annotations

import pytest

from pgnode.errors import InvalidRequestError
from pgnode.xray.proto import geodata_pb2, network_pb2
from pgnode.xray.rules.matchers import address_rule, domain_rule, network

Domain = geodata_pb2.Domain


def test_networks() -> None:
    assert network("TCP", "rule", strict=True) == network_pb2.TCP
    assert network("unix", "rule", strict=True) == network_pb2.UNIX
    assert network("none", "rule", strict=False) == network_pb2.Unknown
    with pytest.raises(InvalidRequestError, match="unknown network 'none'; known are tcp, udp, unix"):
        network("none", "rule: network", strict=True)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("example", Domain.Type.Substr, "example"),
        ("keyword:a", Domain.Type.Substr, "a"),
        ("full:a.b", Domain.Type.Full, "a.b"),
        ("domain:a.b", Domain.Type.Domain, "a.b"),
        ("regexp:^a", Domain.Type.Regex, "^a"),
        ("dotless:", Domain.Type.Regex, "^[^.]*$"),
        ("dotless:lan", Domain.Type.Regex, "^[^.]*lan[^.]*$"),
    ],
)
def test_domains(text: str, kind: geodata_pb2.Domain.Type, value: str) -> None:
    assert domain_rule(text, "rule") == geodata_pb2.DomainRule(custom=Domain(type=kind, value=value))


@pytest.mark.parametrize(
    ("text", "file", "code", "attrs"),
    [
        ("geosite:ads", "geosite.dat", "ADS", ""),
        ("geosite:cn@Ads@x", "geosite.dat", "CN", "ads@x"),
        ("ext:own.dat:a", "own.dat", "A", ""),
        ("ext-domain:own.dat:a", "own.dat", "A", ""),
    ],
)
def test_domains_of_geo_data(text: str, file: str, code: str, attrs: str) -> None:
    assert domain_rule(text, "rule").geosite == geodata_pb2.GeoSiteRule(file=file, code=code, attrs=attrs)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("geosite:", "empty code or attribute"),
        ("geosite:a@", "empty code or attribute"),
        ("ext:file", "must name a file and a code"),
        ("dotless:a.b", "names without dots"),
    ],
)
def test_domains_that_cannot_be(text: str, cause: str) -> None:
    with pytest.raises(InvalidRequestError, match=cause):
        domain_rule(text, "rule: domain")


@pytest.mark.parametrize(
    ("text", "ip", "prefix", "reverse"),
    [
        ("192.0.2.1", bytes([192, 0, 2, 1]), 32, False),
        ("!192.0.2.0/24", bytes([192, 0, 2, 0]), 24, True),
        ("!!192.0.2.1/032", bytes([192, 0, 2, 1]), 32, False),
        ("[::1]", bytes(15) + b"\x01", 128, False),
        ("::ffff:192.0.2.1", bytes([192, 0, 2, 1]), 32, False),
    ],
)
def test_addresses(text: str, ip: bytes, prefix: int, reverse: bool) -> None:
    cidr = geodata_pb2.CIDR(ip=ip, prefix=prefix)
    assert address_rule(text, "rule").custom == geodata_pb2.CIDRRule(cidr=cidr, reverse_match=reverse)


@pytest.mark.parametrize(
    ("text", "file", "code", "reverse"),
    [
        ("geoip:cn", "geoip.dat", "CN", False),
        ("!geoip:cn", "geoip.dat", "CN", True),
        ("!geoip:!cn", "geoip.dat", "CN", False),
        ("ext-ip:own.dat:a", "own.dat", "A", False),
    ],
)
def test_addresses_of_geo_data(text: str, file: str, code: str, reverse: bool) -> None:
    expected = geodata_pb2.GeoIPRule(file=file, code=code, reverse_match=reverse)
    assert address_rule(text, "rule").geoip == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("example.com", "neither an address, a network nor geo data"),
        ("fe80::1%eth0", "has a zone"),
        ("192.0.2.1/33", "no prefix length from 0 to 32"),
        ("192.0.2.1/x", "no prefix length"),
        ("geoip:!", "empty code"),
    ],
)
def test_addresses_that_cannot_be(text: str, cause: str) -> None:
    with pytest.raises(InvalidRequestError, match=cause):
        address_rule(text, "rule: ip")
