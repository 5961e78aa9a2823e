"""All metrics: what they are called, and what may stand in their labels."""

from __future__ import annotations

import re

from pgnode.metrics.catalogue import BY_NAME, FAMILIES, Family

#: Labels that could hold what must not be told, or without end.
FORBIDDEN = {"email", "user", "address", "ip", "host", "pid", "worker", "path", "error", "key_value"}


def test_names_are_as_prometheus_wants_them() -> None:
    assert len(BY_NAME) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch("[a-z][a-z_]*", family.name), family.name
        assert not family.name.endswith(("_total", "_bucket", "_count", "_sum")), family.name
        assert not re.search("_(ms|milliseconds|minutes|kib|mib|mb|percent)(_|$)", family.name), family.name
        assert family.meaning.endswith("."), family.name
        for label in family.labels:
            assert re.fullmatch("[a-z_]+", label.name), family.name
            assert label.values, family.name


def test_no_label_tells_who_or_where() -> None:
    assert not {label.name for family in FAMILIES for label in family.labels} & FORBIDDEN


def test_the_names_of_series() -> None:
    assert Family("a", "gauge", "A.").series_names == ("pgnode_a",)
    assert Family("a", "counter", "A.").series_names == ("pgnode_a_total",)
    assert Family("a", "histogram", "A.").series_names == ("pgnode_a_bucket", "pgnode_a_count", "pgnode_a_sum")
