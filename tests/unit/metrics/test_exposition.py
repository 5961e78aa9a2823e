"""Metrics written down, read again by the parsers of those who read them."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pgnode.metrics.catalogue import FAMILIES
from pgnode.metrics.exposition import render
from pgnode.metrics.instruments import CALL_SECONDS, no_buckets
from pgnode.metrics.series import Series

OPENMETRICS = "application/openmetrics-text"


def everything() -> Series:
    """One series of each metric."""
    series = Series()
    for family in FAMILIES:
        labels = ["x"] * len(family.labels)
        if family.type == "histogram":
            buckets = no_buckets()
            buckets[0], buckets[-2], buckets[-1] = 2, 1, 40.5
            series.set_histogram(family.name, buckets, *labels)
        else:
            series.set(family.name, 7, *labels)
    return series


@pytest.mark.parametrize(
    ("accept", "begins"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.0", "text/plain; version=0.0.4"),
        (OPENMETRICS, f"{OPENMETRICS}; version=1.0.0"),
        (f"text/html, {OPENMETRICS.upper()}; version=7;escaping=\r\nx", f"{OPENMETRICS}; version=1.0.0"),
        ("x" * 5000 + f",{OPENMETRICS}", "text/plain; version=0.0.4"),
    ],
)
def test_the_form_is_what_was_asked_for_and_nothing_of_the_header_comes_back(accept: str, begins: str) -> None:
    content_type, _ = render(Series(), accept)
    assert content_type.startswith(begins)
    assert "\n" not in content_type


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_all_of_it_can_be_read(accept: str, parse: object) -> None:
    assert callable(parse)
    _, text = render(everything(), accept)
    names = {sample.name for metric in parse(text.decode()) for sample in metric.samples}
    assert names == {name for family in FAMILIES for name in family.series_names}


def test_buckets_are_cumulative() -> None:
    _, text = render(everything(), "")
    [metric] = [m for m in parse_text(text.decode()) if m.name == "pgnode_core_start_duration_seconds"]
    found = {s.labels["le"]: s.value for s in metric.samples if s.name.endswith("_bucket")}
    assert list(found) == [*map(str, CALL_SECONDS), "+Inf"]
    assert (found["0.001"], found["30.0"], found["+Inf"]) == (2, 2, 3)
    assert {s.name[-4:]: s.value for s in metric.samples if "le" not in s.labels} == {"ount": 3, "_sum": 40.5}


def test_a_name_that_the_catalogue_lacks_is_a_mistake() -> None:
    series = Series()
    series.set("no_such_metric", 1)
    with pytest.raises(KeyError, match="no_such_metric"):
        render(series, "")


def test_odd_words_in_labels_are_escaped() -> None:
    series = Series()
    series.set("traffic_bytes", 1, "inbound", 'a"b\\c\nd', "uplink")
    [metric] = parse_text(render(series, "")[1].decode())
    assert metric.samples[0].labels["tag"] == 'a"b\\c\nd'
