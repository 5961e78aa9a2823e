"""The API key as callers send it: ``x-api-key`` or a Bearer token, over REST in headers, over gRPC in metadata. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from pgnode.errors import NodeError

#: What a caller without the key is told: nothing by which a node could be told from other services.
WRONG_KEY = "the API key is missing or wrong"

#: What everybody is told while no key is known.
NO_KEY_YET = "not ready yet, try again"

#: The longest text that may be a UUID: ``urn:uuid:`` and braces around the 36 characters.
_KEY_BYTES_MAX = 64


#: Digits of a digest that are shown.
DIGEST_DIGITS: Final = 8

#: What the keys are called: the API key, the one before it while it is still valid, and METRICS_KEY.
CURRENT = "current"
PREVIOUS = "previous"
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
        #: What tells keys apart, and opens nothing: the beginning of the SHA-256 of the key as nearly everybody writes it (8
        #: hexadecimal digits).
        self.digest = sha256(self.canonical).hexdigest()[:DIGEST_DIGITS]

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


class DigestCheck(KeyCheck):
    """Compare keys with a digest: the key itself is known only when somebody has sent it.

    Args:
        digest: SHA-256 of the key as nearly everybody writes it, in hexadecimal; "" for a key that nobody has.
        on_found: Called when the key was sent for the first time.
    """

    def __init__(self, digest: str, on_found: Callable[[], None] = lambda: None) -> None:
        # Until then something that nobody sends.
        super().__init__(str(uuid.uuid4()))
        self.digest = digest[:DIGEST_DIGITS]
        self._whole = digest
        self._found = False
        self._on_found = on_found

    def _matches(self, sent: bytes) -> bool:
        if self._found:
            return super()._matches(sent)
        if not self._whole or len(sent) > _KEY_BYTES_MAX:
            return False
        try:
            key = uuid.UUID(sent.decode("ascii").strip())
        except ValueError:
            return False
        canonical = str(key).encode()
        if not compare_digest(sha256(canonical).hexdigest(), self._whole):
            return False
        self.canonical, self._value, self._found = canonical, key.bytes, True
        self._on_found()
        return True


class ApiKeys:
    """The keys that are valid now: the API key, and the one before it for some time after a rotation.

    Args:
        current: The API key, a UUID in any notation; ValueError for anything else. None: it is not known yet.
        previous: The one before it; None for none.
        on_previous: Called for every request that brings the previous one.
    """

    def __init__(
        self, current: str | None, previous: str | None = None, *, on_previous: Callable[[], None] = lambda: None
    ) -> None:
        self._on_previous = on_previous
        self._followers: list[Callable[[bytes], None]] = []
        #: What is answered to everybody who has the key; None where they are served.
        self.refusal: NodeError | None = None
        #: Whether there is one to compare with.
        self.is_known = current is not None
        self._told: tuple[str, str | None] | None = None
        self._current = KeyCheck(current) if current is not None else DigestCheck("")
        self._previous = KeyCheck(previous) if previous is not None else None
        #: Name of a key -> what tells keys apart, and opens nothing (:attr:`KeyCheck.digest`).
        self.digests: Mapping[str, str] = self._digests()

    def __repr__(self) -> str:
        return f"ApiKeys({'one' if self._previous is None else 'two'})"

    @classmethod
    def of(cls, api_key: str | ApiKeys) -> ApiKeys:
        """Return keys as they are, and one key as keys that nobody changes."""
        return api_key if isinstance(api_key, ApiKeys) else cls(api_key)

    def replace(self, current: str, previous: str | None) -> None:
        """Take other keys, from the next request on.

        Args:
            current: The API key, a UUID in any notation.
            previous: The one before it; None for none.

        Raises:
            ValueError: One of them is no UUID; all stays as it was.
        """
        self._current, self._previous = KeyCheck(current), KeyCheck(previous) if previous is not None else None
        self.digests = self._digests()
        self._tell()

    def take_digests(self, current: str, previous: str | None) -> bool:
        """Take keys of which only the digests are known, from the next request on.

        Args:
            current: SHA-256 of the API key, in hexadecimal.
            previous: The same of the one before it; None for none.

        Returns:
            Whether the API key is another one than before.
        """
        before = self._told
        if before == (current, previous):
            return False
        self._told, self.is_known = (current, previous), True
        is_new = before is None or before[0] != current
        if is_new:
            self._current = DigestCheck(current, self._tell)
        self._previous = DigestCheck(previous) if previous is not None else None
        self.digests = self._digests()
        self._tell()
        return is_new

    def _tell(self) -> None:
        for follower in self._followers:
            follower(self._current.canonical)

    def _digests(self) -> dict[str, str]:
        found = {CURRENT: self._current.digest}
        if self._previous is not None:
            found[PREVIOUS] = self._previous.digest
        return found

    def tell(self, follower: Callable[[bytes], None]) -> None:
        """Tell ``follower`` the API key as nearly everybody writes it: now, and whenever it is another one."""
        self._followers.append(follower)
        follower(self._current.canonical)

    def find(self, headers: Mapping[bytes, bytes]) -> str:
        """Tell which key ``headers`` (names in lower case) hold, "" for none that is valid."""
        if self._current(headers):
            return CURRENT
        if self._previous is not None and self._previous(headers):
            self._on_previous()
            return PREVIOUS
        return ""


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
