"""Which calls go into the audit trail: starts, stops and maintenance one by one; changes of users and routing as numbers.

A call that asks is in it nowhere. What it says of the key is the beginning of a digest: that tells keys apart, and opens nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import structlog

from pgnode.metrics.meter import OK

log = structlog.get_logger(__name__)

#: Groups of methods whose calls are told one by one, and whose calls are counted.
ONE_BY_ONE: Final = frozenset({"start", "maintain"})
COUNTED: Final = frozenset({"change"})

#: Seconds between two lines about what was counted.
TELL_SECONDS: Final = 600.0

#: Callers that are told apart between two such lines.
CALLERS_MAX: Final = 100

#: What further callers are called.
_OTHERS: Final = "others"

Later = Callable[[float, Callable[[], None]], Any]


class Watched(Protocol):
    """What is known of the keys."""

    @property
    def digests(self) -> Mapping[str, str]:
        """Name of a key -> the beginning of its digest."""


def _in_this_loop(seconds: float, what: Callable[[], None]) -> Any:
    return asyncio.get_running_loop().call_later(seconds, what)


class CallAudit:
    """Belongs to one worker's loop.

    Args:
        keys: The keys that are valid.
        later: Calls something after so many seconds.
        tell_seconds: Seconds between two lines about what was counted.
    """

    def __init__(self, keys: Watched, later: Later = _in_this_loop, *, tell_seconds: float = TELL_SECONDS) -> None:
        self._keys = keys
        self._later = later
        self._tell_seconds = tell_seconds
        #: Caller and key -> how often each method was called, and how many calls failed.
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        #: Of the last call that was counted: caller, key, the digests then, and its counts. Nearly always the next one is alike.
        self._last: tuple[str, str, Mapping[str, str], Counter[str]] | None = None

    def __repr__(self) -> str:
        return f"CallAudit({len(self._counts)} callers)"

    def takes(self, group: str) -> bool:
        """Return whether calls of a group of methods are told or counted."""
        return group in ONE_BY_ONE or group in COUNTED

    def ended(self, method: str, group: str, caller: str, key: str, code: str) -> None:
        """Take note of a call that was answered.

        Args:
            method: Its name.
            group: The group of its method.
            caller: The address of its caller.
            key: Which key it brought.
            code: What was answered.
        """
        digests = self._keys.digests
        if code == OK and self._last is not None and group in COUNTED:
            last_caller, last_key, last_digests, last_counts = self._last
            if last_caller == caller and last_key == key and last_digests is digests:
                last_counts[method] += 1
                return
        digest = digests.get(key, "")
        if group in ONE_BY_ONE:
            log.info("called", audit="call", method=method, caller=caller, key=digest, answer=code)
            return
        if not self._counts:
            self._later(self._tell_seconds, self.tell)
        who = (caller, digest)
        if who not in self._counts and len(self._counts) >= CALLERS_MAX:
            who = (_OTHERS, "")
        counts = self._counts.get(who)
        if counts is None:
            counts = self._counts[who] = Counter()
        counts[method] += 1
        if code != OK:
            counts["failed"] += 1
        self._last = caller, key, digests, counts

    def tell(self) -> None:
        """Say what was counted since the last time."""
        found, self._counts, self._last = self._counts, {}, None
        for (caller, digest), counts in found.items():
            log.info("changes", audit="changes", caller=caller, key=digest, **counts)
