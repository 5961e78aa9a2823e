"""The values of metrics."""

from __future__ import annotations

from pgnode.metrics.series import Series


def test_values_by_labels() -> None:
    series = Series()
    series.set("up", True)
    series.set("workers", 2, "rest")
    series.set("workers", 3, "grpc")
    series.set("unknown", None)
    series.set_histogram("took", [1.0, 2.0], "read")
    assert series.values == {"up": {(): 1}, "workers": {("rest",): 2, ("grpc",): 3}}
    assert series.histograms == {"took": {("read",): [1.0, 2.0]}}
