"""The first step of a request: the API key; the service is told of each caller that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hmac import compare_digest

from pgnode.api.auth import CURRENT, METRICS, ApiKeys, TextCheck


class AuthStep:
    """Decides whether a request goes on.

    Args:
        api_key: The keys, or one that nobody changes: a UUID in any notation; ValueError for anything else.
        on_call: Called for every request that brings one of them.
        metrics_key: Another text that opens what is behind this step; its callers are not told of.
    """

    def __init__(self, api_key: str | ApiKeys, on_call: Callable[[], None], metrics_key: str | None = None) -> None:
        keys = ApiKeys.of(api_key)
        #: The keys.
        self.keys = keys
        self._find = keys.find
        keys.tell(self._take)
        self._on_call = on_call
        self._metrics_key_ok = TextCheck(metrics_key) if metrics_key is not None else None

    def __repr__(self) -> str:
        return "AuthStep()"

    def admits(self, headers: Mapping[bytes, bytes]) -> str:
        """Tell which key ``headers`` (names in lower case) hold, "" for none that is right.

        The usual form of the key is compared right here, in constant time like all others.
        """
        key = headers.get(b"x-api-key")
        if key is not None and compare_digest(key, self._canonical):
            self._on_call()
            return CURRENT
        found = self._find(headers)
        if found:
            self._on_call()
            return found
        return METRICS if self._metrics_key_ok is not None and self._metrics_key_ok(headers) else ""

    def _take(self, canonical: bytes) -> None:
        self._canonical = canonical
