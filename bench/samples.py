"""Statistics of samples, and the order in which sides take turns. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TypeVar

__all__ = ["median", "middle", "percentile", "share_of", "turns"]

T = TypeVar("T")


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` (0 to 1) of all samples do not exceed (nearest rank).

    ``nan`` without samples. ValueError for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share is between 0 and 1, not {share}")
    if not samples:
        return math.nan
    rank = math.ceil(share * len(samples))
    return sorted(samples)[max(rank, 1) - 1]


def middle(samples: Sequence[float]) -> float:
    """The mean of the samples without the lowest and the highest quarter; ``nan`` without samples.

    One odd turn moves it as little as a median, and it says more where turns take one of two prices.
    """
    if not samples:
        return math.nan
    cut = len(samples) // 4
    kept = sorted(samples)[cut : len(samples) - cut]
    return sum(kept) / len(kept)


def share_of(ours: float, other: float) -> float:
    """``ours / other``; ``nan`` where that means nothing."""
    return ours / other if other else math.nan


def turns(sides: Sequence[T], rounds: int) -> Iterator[T]:
    """Each side once in every round, in alternating order: A B, B A, A B …

    A machine that gets slower or faster meanwhile treats the sides alike, and nobody is always the first.
    """
    for number in range(rounds):
        yield from sides if number % 2 == 0 else reversed(sides)
