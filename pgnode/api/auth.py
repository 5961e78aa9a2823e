"""The API key as callers send it: ``x-api-key`` or a Bearer token, over REST in headers, over gRPC in metadata. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from hmac import compare_digest

#: What a caller without the key is told: nothing by which a node could be told from other services.
WRONG_KEY = "the API key is missing or wrong"

#: The longest text that may be a UUID: ``urn:uuid:`` and braces around the 36 characters.
_KEY_BYTES_MAX = 64


#: What the keys are called: the API key, and METRICS_KEY.
CURRENT = "current"
METRICS = "metrics"


class KeyCheck:
    """Compare keys with the node's own, by their value as UUIDs and in constant time.

    Args:
        api_key: A UUID in any notation.

    Raises:
        ValueError: ``api_key`` is not a UUID.
    """

    def __init__(self, api_key: str) -> None:
        key = uuid.UUID(api_key)
        #: The key as nearly everybody writes it.
        self.canonical = str(key).encode()
        self._value = key.bytes

    def __repr__(self) -> str:
        return "KeyCheck()"

    def __call__(self, headers: Mapping[bytes, bytes]) -> bool:
        """Tell whether ``headers`` (names in lower case) hold the key."""
        return any(self._matches(sent) for sent in _sent(headers))

    def _matches(self, sent: bytes) -> bool:
        if compare_digest(sent, self.canonical):
            return True
        if len(sent) > _KEY_BYTES_MAX:
            return False
        try:
            value = uuid.UUID(sent.decode("ascii").strip())
        except ValueError:
            return False
        return compare_digest(value.bytes, self._value)


class TextCheck:
    """Compare keys with a text, in constant time.

    Args:
        text: The text.
    """

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def __repr__(self) -> str:
        return "TextCheck()"

    def __call__(self, headers: Mapping[bytes, bytes]) -> bool:
        """Tell whether ``headers`` (names in lower case) hold the text."""
        return any(compare_digest(sent.strip(), self._text) for sent in _sent(headers))


def _sent(headers: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """Yield what may be a key."""
    sent = headers.get(b"x-api-key")
    if sent is not None:
        yield sent
    scheme, _, token = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer":
        yield token
