"""Names of counters, taken apart and put together."""

from __future__ import annotations

import pytest

from pgnode.wire.stat_names import Counter, counter_name, parse_counter


@pytest.mark.parametrize(
    ("name", "counter"),
    [
        ("user>>>alice>>>traffic>>>uplink", Counter("user", "alice", "traffic", "uplink")),
        ("inbound>>>a>>>b>>>traffic>>>downlink", Counter("inbound", "a>>>b", "traffic", "downlink")),
        ("outbound>>>>>>traffic>>>uplink", Counter("outbound", "", "traffic", "uplink")),
    ],
)
def test_a_counter_is_taken_apart_and_put_together(name: str, counter: Counter) -> None:
    assert parse_counter(name) == counter
    assert counter_name(counter) == name


@pytest.mark.parametrize("name", ["", "user", "user>>>alice", "user>>>alice>>>online"])
def test_what_has_fewer_parts_is_no_statistic(name: str) -> None:
    assert parse_counter(name) is None
