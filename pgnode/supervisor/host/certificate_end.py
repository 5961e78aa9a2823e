"""When a certificate ends, read from its bytes (X.509, RFC 5280). Pure.

The library that knows all of X.509 costs the supervisor 10 MB; this is one date.
"""

from __future__ import annotations

import datetime
from typing import Final

#: Tags of DER.
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


def end_of(der: bytes) -> datetime.datetime:
    """Return when a certificate ends.

    Args:
        der: The certificate.

    Returns:
        The last second at which it is valid.

    Raises:
        ValueError: It is no certificate.
    """
    certificate, _ = _value(der, _SEQUENCE)
    signed, _ = _value(certificate, _SEQUENCE)
    if signed[:1] == bytes((_VERSION,)):
        _, signed = _value(signed)
    for _ in ("serial number", "signature", "issuer"):
        _, signed = _value(signed)
    validity, _ = _value(signed, _SEQUENCE)
    _, ends = _value(validity)
    tag = ends[0] if ends else None
    text, _ = _value(ends)
    written = text.decode("ascii")
    if tag == _UTC_TIME:
        # Two digits of the year: 50 and more are of the last century.
        written = ("19" if written >= "50" else "20") + written
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.datetime.strptime(written, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _value(data: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """Cut the first element off; returns its content, and what follows. Raises ValueError."""
    if len(data) < 2 or (tag is not None and data[0] != tag):
        raise ValueError("not the element that is to be here")
    length, at = data[1], 2
    if length & 0x80:
        at += length & 0x7F
        if not 2 < at <= 6:
            raise ValueError("a length that no certificate has")
        length = int.from_bytes(data[2:at], "big")
    if at + length > len(data):
        raise ValueError("cut short")
    return data[at : at + length], data[at + length :]
