"""Histograms, and the bounds of their buckets. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

#: Upper bounds of the buckets for what callers wait for; seconds.
CALL_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: The values of one histogram: how often each bucket was met, those above the last bound, and the sum of all values.
Buckets = list[float]


class Histogram:
    """Histograms of one kind, by the values of their labels.

    Args:
        bounds: Upper bounds of the buckets, rising.
    """

    def __init__(self, bounds: Sequence[float] = CALL_SECONDS) -> None:
        self.bounds = tuple(bounds)
        self._buckets: dict[tuple[str, ...], Buckets] = {}

    def __repr__(self) -> str:
        return f"Histogram({len(self._buckets)} series, up to {self.bounds[-1]:g})"

    def observe(self, value: float, *labels: str, count: int = 1) -> None:
        """Count one value, or several that are alike, under the values of their labels."""
        buckets = self._buckets.get(labels)
        if buckets is None:
            buckets = self._buckets[labels] = no_buckets(self.bounds)
        buckets[bisect_left(self.bounds, value)] += count
        buckets[-1] += value * count

    def items(self) -> Iterator[tuple[tuple[str, ...], Buckets]]:
        """Yield the labels and the values of each histogram."""
        return iter(self._buckets.items())


def no_buckets(bounds: Sequence[float] = CALL_SECONDS) -> Buckets:
    """Return the values of a histogram that has counted nothing.

    Args:
        bounds: Upper bounds of its buckets.

    Returns:
        A number for each bucket, one for what is above the last bound, and the sum.
    """
    return [0.0] * (len(bounds) + 2)
