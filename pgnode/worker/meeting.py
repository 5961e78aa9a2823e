"""How a worker meets its supervisor: whether both speak the same protocol, and which keys are valid where it has none itself."""

from __future__ import annotations

import asyncio

import structlog

from pgnode import __version__
from pgnode.api.auth import ApiKeys
from pgnode.bus.protocol import Hello, disagreement
from pgnode.errors import UnavailableError

log = structlog.get_logger(__name__)


class Meeting:
    """Belongs to the worker's loop.

    Args:
        keys: The keys that callers may send; while the protocols differ, nobody is served.
        takes_keys: Whether the valid keys are those whose digests the supervisor tells.
        version: This worker's version.
    """

    def __init__(self, keys: ApiKeys, *, takes_keys: bool, version: str = __version__) -> None:
        self._keys = keys
        self._takes_keys = takes_keys
        self._version = version
        self._told = ""
        self._previous_ends: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Meeting({self._told or 'well'})"

    def met(self, hello: Hello) -> None:
        """Take what the supervisor says of itself.

        Args:
            hello: What it says.
        """
        why = disagreement(hello, self._version)
        self._keys.refusal = UnavailableError(why) if why else None
        if why and why != self._told:
            log.error("this worker serves nobody", because=why)
        elif not why and self._told:
            log.info("this worker serves again", version=hello.version)
        elif not why and hello.version not in ("", self._version):
            log.warning("the supervisor is of another version", supervisor=hello.version, worker=self._version)
        self._told = why
        if self._takes_keys and hello.key:
            self._take_keys(hello)

    def _take_keys(self, hello: Hello) -> None:
        if self._previous_ends is not None:
            self._previous_ends.cancel()
            self._previous_ends = None
        if self._keys.take_digests(hello.key, hello.previous or None):
            log.info("API key taken from the supervisor", audit="key")
        if hello.previous:
            # By this worker's own timer: clocks of hosts differ.
            self._previous_ends = asyncio.get_running_loop().call_later(
                hello.previous_ms / 1000, self._previous_over, hello.key
            )

    def _previous_over(self, key: str) -> None:
        self._previous_ends = None
        self._keys.take_digests(key, None)
        log.info("the previous API key is not valid any more", audit="key")

    def close(self) -> None:
        """Forget the timer."""
        if self._previous_ends is not None:
            self._previous_ends.cancel()
