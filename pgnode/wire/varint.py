"""Protobuf's variable-length integers and length-delimited fields, as bytes. The one place that does them by hand. Pure.

Generated messages do the same, and are used wherever speed does not matter. By hand, a serialized message is put into another
one, or taken out of it, without being parsed (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from mmap import mmap
from typing import Final

#: Bits of the largest number there is.
BITS_MAX = 64

_LENGTH_DELIMITED = 2
#: A byte that is followed by others, by its low seven bits.
_CONTINUED = [bytes((low | 0x80,)) for low in range(0x80)]
#: Numbers below this are encoded in one or two bytes.
SHORT_MAX: Final = 0x4000
#: The whole encoding of each of these, for whoever encodes so much that calls of :func:`encode` are too many.
SHORT: Final = tuple(bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(SHORT_MAX))


class VarintError(ValueError):
    """The bytes are no number of 64 bits."""


class VarintCutShortError(VarintError):
    """The bytes end before the number does."""


def encode(value: int) -> bytes:
    """Encode a number that is not negative: seven bits a byte, the low ones first."""
    if value < SHORT_MAX:
        return SHORT[value]
    head = b""
    while value >= SHORT_MAX:
        head += _CONTINUED[value & 0x7F]
        value >>= 7
    return head + SHORT[value]


def decode(data: bytes | mmap, at: int) -> tuple[int, int]:
    """Decode one number.

    Args:
        data: Bytes with the number in them.
        at: Where it begins.

    Returns:
        The number, and where it ends.

    Raises:
        VarintCutShortError: The data end before it does.
        VarintError: It has more than 64 bits.
    """
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift >= BITS_MAX:
                raise VarintError("a number of more than ten bytes")
    except IndexError:
        raise VarintCutShortError("a number is cut short") from None
    if value >> BITS_MAX:
        raise VarintError("a number of more than 64 bits")
    return value, at


def field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field: text, bytes or a serialized message.

    Args:
        number: Number of the field, below 2,048.
        content: What it holds.

    Returns:
        Tag, length and content.
    """
    size = len(content)
    # Not two calls of encode(): this is done several times a user.
    return b"%b%b%b" % (
        SHORT[number << 3 | _LENGTH_DELIMITED],
        SHORT[size] if size < SHORT_MAX else encode(size),
        content,
    )
