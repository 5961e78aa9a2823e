"""The first step of a request: the API key; the service is told of each caller that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hmac import compare_digest

from pgnode.api.auth import CURRENT, METRICS, KeyCheck, TextCheck


class AuthStep:
    """Decides whether a request goes on.

    Args:
        api_key: The key, a UUID in any notation; ValueError for anything else.
        on_call: Called for every request that brings the key.
        metrics_key: Another text that opens what is behind this step; its callers are not told of.
    """

    def __init__(self, api_key: str, on_call: Callable[[], None], metrics_key: str | None = None) -> None:
        self._key_ok = KeyCheck(api_key)
        self._canonical = self._key_ok.canonical
        self._on_call = on_call
        self._metrics_key_ok = TextCheck(metrics_key) if metrics_key is not None else None

    def __repr__(self) -> str:
        return "AuthStep()"

    def admits(self, headers: Mapping[bytes, bytes]) -> str:
        """Tell which key ``headers`` (names in lower case) hold, "" for none that is right.

        The usual form of the key is compared right here, in constant time like all others.
        """
        key = headers.get(b"x-api-key")
        if (key is None or not compare_digest(key, self._canonical)) and not self._key_ok(headers):
            return METRICS if self._metrics_key_ok is not None and self._metrics_key_ok(headers) else ""
        self._on_call()
        return CURRENT
