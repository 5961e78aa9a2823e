"""Numbers as people read them."""

from __future__ import annotations

import pytest

from pgnode.cli.texts import count, duration, seconds_of, size


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
