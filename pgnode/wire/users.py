"""A ``Users`` message as the bytes of its users, without parsing any of them. Pure.

Comparing 100,000 users with what is known takes their bytes, and of those that are known nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from pgnode.wire import varint

#: The tag of ``Users.users``, and of ``User.email``: field 1, length-delimited.
_FIELD_1 = 0x0A


def split_users(body: bytes) -> Iterator[bytes]:
    """Yield the serialized ``User`` messages in a serialized ``Users``; raise DecodeError where it is none.

    Fields that ``Users`` does not have are refused, too: the generated parser takes what they hold, so callers fall back to it.
    """
    at, end = 0, len(body)
    try:
        while at < end:
            if body[at] != _FIELD_1:
                raise DecodeError(f"field {body[at] >> 3} is none of Users")
            # Lengths of one byte and of two are read here: nearly all are.
            size, begin = body[at + 1], at + 2
            if size >= 0x80:
                more = body[begin]
                if more < 0x80:
                    size, begin = size & 0x7F | more << 7, begin + 1
                else:
                    size, begin = varint.decode(body, at + 1)
            at = begin + size
            if at > end:
                raise DecodeError("a user is cut short")
            yield body[begin:at]
    except (IndexError, varint.VarintError):
        raise DecodeError("the message is cut short") from None


def leading_email(user: bytes) -> str | None:
    """Return the e-mail of a serialized ``User`` that begins with it, as serializers write it; None where it does not."""
    if len(user) < 2 or user[0] != _FIELD_1 or not 0 < user[1] < 0x80:
        return None
    try:
        return user[2 : 2 + user[1]].decode()
    except UnicodeDecodeError:
        return None
