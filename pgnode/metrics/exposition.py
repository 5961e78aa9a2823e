"""Writes metrics down, as Prometheus or as OpenMetrics wants them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from pgnode.metrics.catalogue import BY_NAME, FAMILIES, PREFIX, Family
from pgnode.metrics.instruments import CALL_SECONDS
from pgnode.metrics.series import LabelValues, Series

#: Characters of an Accept header that are looked at.
ACCEPT_MAX = 1000


class _Collector(Collector):
    def __init__(self, series: Series) -> None:
        self._series = series

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            if family.type == "histogram":
                if found := self._series.histograms.get(family.name):
                    yield _histogram(family, found)
            elif values := self._series.values.get(family.name):
                yield _metric(family, values)


def render(series: Series, accept: str) -> tuple[str, bytes]:
    """Write metrics down.

    Args:
        series: Their values.
        accept: The Accept header of whoever asks; "" for none.

    Returns:
        The content type, and the text.

    Raises:
        KeyError: The catalogue lacks a name.
    """
    for name in (*series.values, *series.histograms):
        BY_NAME[name]
    collector = _Collector(series)
    if _wants_openmetrics(accept):
        return openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest(collector)  # type: ignore[no-untyped-call]
    return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(collector)


def _wants_openmetrics(accept: str) -> bool:
    ranges = accept[:ACCEPT_MAX].lower().split(",")
    return any(one.split(";")[0].strip() == "application/openmetrics-text" for one in ranges)


def _metric(family: Family, values: Mapping[LabelValues, float]) -> Metric:
    made = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
    metric = made(PREFIX + family.name, family.meaning, labels=[label.name for label in family.labels])
    for labels, value in values.items():
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Family, found: Mapping[LabelValues, Sequence[float]]) -> Metric:
    metric = HistogramMetricFamily(PREFIX + family.name, family.meaning, labels=[label.name for label in family.labels])
    for labels, buckets in found.items():
        total = 0.0
        bounded: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, CALL_SECONDS), "+Inf"), buckets, strict=False):
            total += count
            bounded.append((bound, total))
        metric.add_metric(labels, bounded, buckets[-1])
    return metric
