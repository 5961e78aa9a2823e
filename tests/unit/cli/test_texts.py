"""Numbers as people read them."""

from __future__ import annotations

import pytest

from pgnode.cli.texts import count, duration, open_connections, seconds_of, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.9, "59 s"), (250, "4 min 10 s"), (7_500, "2 h 5 min"), (273_600, "3 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_counts() -> None:
    assert size(4_200_000) == "4.2 MB"
    assert (count(1, "time"), count(1_200, "time"), count(0, "worker")) == ("1 time", "1,200 times", "0 workers")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), (" 2h ", 7200), ("1d", 86_400), ("0s", 0), ("10", None), ("m", None), ("-1s", None)],
)
def test_times_that_somebody_writes(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


def test_open_connections_are_named_by_inbound() -> None:
    assert open_connections({}) == "0 connections over TCP"
    assert open_connections({"b": 2, "a": 1_200, "c": 0}) == "1,202 connections over TCP: a 1,200, b 2"
    many = {f"tag{number}": 1 for number in range(6)}
    assert open_connections(many) == "6 connections over TCP: tag0 1, tag1 1, tag2 1, tag3 1 and 2 more inbounds"
