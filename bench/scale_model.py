"""What N workers cost, as a line: a fixed part, and a part for each worker. Pure.

Everything that workers do by themselves (signs of life, reports, a look at the snapshots every two seconds) each does for
itself, so costs grow with their number, and nothing grows faster. What the line of the smaller runs says of the largest run shows
whether that is so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: A process on one processor.
FULL_PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class Line:
    """``fixed + each * workers``."""

    fixed: float
    each: float

    def at(self, workers: float) -> float:
        return self.fixed + self.each * workers

    def workers_at(self, limit: float) -> float:
        """How many workers it takes to reach a limit; infinite where none do."""
        return (limit - self.fixed) / self.each if self.each > 0 else float("inf")


def fitted(points: Sequence[tuple[float, float]]) -> Line:
    """The line of least squares through (workers, cost). ValueError for less than two numbers of workers."""
    if len({workers for workers, _ in points}) < 2:
        raise ValueError("a line needs two different numbers of workers")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    each = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return Line(mean_y - each * mean_x, each)


def bottleneck(lines: Mapping[str, Line], limit: float = FULL_PERCENT) -> tuple[str, float]:
    """What of all that has one processor is full first, and with how many workers. ValueError where there is nothing."""
    name = min(lines, key=lambda found: lines[found].workers_at(limit))
    return name, lines[name].workers_at(limit)
