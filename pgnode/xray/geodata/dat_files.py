"""Whether bytes are a geoip.dat or geosite.dat: their outer form, without decoding millions of entries. Pure.

Both are one protobuf message with a repeated field 1 of entries (``GeoIPList``, ``GeoSiteList``; xray-core
``common/geodata/geodat.proto``); an entry has its code in field 1, and in field 2 its networks (address bytes in field 1) or its
domains (type in field 1, as a number, and value in field 2).
"""

from __future__ import annotations

from mmap import mmap
from typing import Literal

from pgnode.wire import varint

GeoKind = Literal["geoip", "geosite"]

Bytes = bytes | mmap

_TAG_1_BYTES = 0x0A
_TAG_2_BYTES = 0x12
_TAG_1_NUMBER = 0x08
_ADDRESS_BYTES = (4, 16)


class NoGeoFileError(ValueError):
    """``str(error)`` tells what is wrong, and where."""


def read_geo_codes(data: Bytes, kind: GeoKind) -> list[str]:
    """Read the codes of all entries, in their order. Raises NoGeoFileError."""
    codes: list[str] = []
    at, end = 0, len(data)
    while at < end:
        entry_at, entry_end = _field(data, at, end, _TAG_1_BYTES, "an entry")
        code_at, code_end = _field(data, entry_at, entry_end, _TAG_1_BYTES, "a code")
        try:
            code = data[code_at:code_end].decode("ascii")
        except UnicodeDecodeError:
            raise NoGeoFileError(f"no {kind} file: the code at byte {code_at} is no text") from None
        if not code:
            raise NoGeoFileError(f"no {kind} file: the entry at byte {at} has an empty code")
        if code_end < entry_end and data[code_end] == _TAG_2_BYTES:
            first_at, first_end = _field(data, code_end, entry_end, _TAG_2_BYTES, "a list")
            _check_first(data, first_at, first_end, kind)
        codes.append(code)
        at = entry_end
    if not codes:
        raise NoGeoFileError(f"no {kind} file: it is empty")
    return codes


def _check_first(data: Bytes, at: int, end: int, kind: GeoKind) -> None:
    """Check by the first network or domain of an entry which kind of file this is."""
    if kind == "geoip":
        ip_at, ip_end = _field(data, at, end, _TAG_1_BYTES, "an address")
        if ip_end - ip_at not in _ADDRESS_BYTES:
            raise NoGeoFileError(f"no geoip file: the address at byte {ip_at} has {ip_end - ip_at} bytes")
    elif at >= end or data[at] not in (_TAG_1_NUMBER, _TAG_2_BYTES):
        raise NoGeoFileError(f"no geosite file: no domain at byte {at}")


def _field(data: Bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """Find where the content of a length-delimited field begins and ends."""
    if at >= end or data[at] != tag:
        raise NoGeoFileError(f"no geo file: {what} is missing at byte {at}")
    try:
        length, position = varint.decode(data, at + 1)
    except varint.VarintError:
        raise NoGeoFileError(f"no geo file: cut off at byte {at + 1}") from None
    if position + length > end:
        raise NoGeoFileError(f"no geo file: cut off, {what} at byte {at} is longer than what is there")
    return position, position + length
