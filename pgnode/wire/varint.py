"""Protobuf's variable-length integers and length-delimited fields, as bytes. The one place that encodes them by hand. Pure.

Generated messages do the same, and are used wherever speed does not matter. By hand, a serialized message is put into another
one without being parsed (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

#: A byte that is followed by others, by its low seven bits.
_CONTINUED = [bytes((low | 0x80,)) for low in range(0x80)]
#: The whole encoding of what one or two bytes can hold.
_SHORT = [bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(0x4000)]

_LENGTH_DELIMITED = 2


def encode(value: int) -> bytes:
    """Encode a number that is not negative: seven bits a byte, the low ones first."""
    if value < 0x4000:
        return _SHORT[value]
    head = b""
    while value >= 0x4000:
        head += _CONTINUED[value & 0x7F]
        value >>= 7
    return head + _SHORT[value]


def delimited(content: bytes) -> bytes:
    """Put the length of ``content`` in front of it."""
    return encode(len(content)) + content


def field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field: text, bytes or a serialized message."""
    return encode(number << 3 | _LENGTH_DELIMITED) + encode(len(content)) + content
