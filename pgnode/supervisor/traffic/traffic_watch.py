"""What each counter moved between the last two readings of the core, kept for as long as an operator looks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: Seconds after the last look in which it is still kept.
KEPT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class BytesMoved:
    """What moved between two readings."""

    #: Tells it from the ones before.
    number: int = 0
    #: Seconds between the two.
    seconds: float = 0.0
    #: Counter -> bytes.
    by_counter: Mapping[str, int] = field(default_factory=dict)


class TrafficWatch:
    """Costs nothing while nobody looks.

    Args:
        now: Seconds on a clock that nobody sets.
        kept_seconds: Seconds after the last look in which it is still kept.
    """

    def __init__(self, now: Callable[[], float], *, kept_seconds: float = KEPT_SECONDS) -> None:
        self._now = now
        self._kept_seconds = kept_seconds
        self._until = 0.0
        self._counts: dict[str, int] | None = None
        self._latest = BytesMoved()

    def __repr__(self) -> str:
        return f"TrafficWatch({'off' if self._counts is None else f'{len(self._counts)} counters'})"

    @property
    def counts(self) -> dict[str, int] | None:
        """Where a reading adds what moved, by counter; None where nobody looks."""
        if self._counts is not None and self._now() >= self._until:
            self._counts, self._latest = None, BytesMoved(self._latest.number)
        return self._counts

    def look(self) -> BytesMoved:
        """Return what moved between the last two readings; nothing where that was not kept."""
        counts = self.counts
        self._until = self._now() + self._kept_seconds
        if counts is None:
            self._counts = {}
        return self._latest

    def reading_done(self, seconds: float | None) -> None:
        """Note that a reading is complete.

        Args:
            seconds: Since the one before it; None where there was none.
        """
        counts = self.counts
        if counts is None:
            return
        self._counts = {}
        if seconds:
            self._latest = BytesMoved(self._latest.number + 1, seconds, counts)
