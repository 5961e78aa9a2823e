"""The values of metrics at one moment. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pgnode.metrics.instruments import Buckets

LabelValues = tuple[str, ...]


@dataclass(slots=True)
class Series:
    """The values of all metrics at one moment, by names of :mod:`pgnode.metrics.catalogue`."""

    values: dict[str, dict[LabelValues, float]] = field(default_factory=dict)
    histograms: dict[str, dict[LabelValues, Sequence[float]]] = field(default_factory=dict)

    def set(self, name: str, value: float | None, *labels: str) -> None:
        """Set one value of a metric, under its labels in the order of the catalogue; None is not known, and left out."""
        if value is not None:
            self.values.setdefault(name, {})[labels] = value

    def set_histogram(self, name: str, buckets: Buckets, *labels: str) -> None:
        """Set one histogram."""
        self.histograms.setdefault(name, {})[labels] = buckets
