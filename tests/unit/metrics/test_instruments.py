"""Histograms."""

from __future__ import annotations

from pgnode.metrics.instruments import CALL_SECONDS, Histogram, no_buckets


def test_a_value_is_counted_in_the_first_bucket_that_holds_it() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 7):
        histogram.observe(value, "a")
    assert dict(histogram.items()) == {("a",): [2, 2, 1, 12]}
    assert repr(histogram) == "Histogram(1 series, up to 2)"


def test_values_that_are_alike_are_counted_at_once() -> None:
    histogram = Histogram((1, 2))
    histogram.observe(1.5, "a", count=3)
    assert dict(histogram.items()) == {("a",): [0, 3, 0, 4.5]}


def test_series_are_kept_apart() -> None:
    histogram = Histogram()
    histogram.observe(0.01, "a", "b")
    histogram.observe(0.01)
    assert {labels for labels, _ in histogram.items()} == {("a", "b"), ()}


def test_nothing_counted() -> None:
    assert no_buckets() == [0] * (len(CALL_SECONDS) + 2)
    assert list(CALL_SECONDS) == sorted(CALL_SECONDS)
