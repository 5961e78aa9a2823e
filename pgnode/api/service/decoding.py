"""Reads the messages of callers. Pure."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from pgnode.errors import InvalidRequestError

_M = TypeVar("_M", bound=Message)


def decode(message: type[_M], body: bytes) -> _M:
    """Read a message.

    Args:
        message: Its type.
        body: Its bytes.

    Returns:
        The message.

    Raises:
        InvalidRequestError: The bytes are malformed, or hold text that is not UTF-8.
    """
    try:
        return message.FromString(body)
    except DecodeError:
        # The parser does not say what or where.
        name = message.DESCRIPTOR.name
        raise InvalidRequestError(
            f"malformed {name}: the body is not a {name} message, or text in it is not UTF-8"
        ) from None
