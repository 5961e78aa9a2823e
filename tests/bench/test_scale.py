"""The pure parts of the scenario ``scale``."""

from __future__ import annotations

import pytest

from bench.scale_stage import HOSTS, share
from bench.scenarios.scale import Idle, longest_gap, modelled


@pytest.mark.parametrize("count", [4, 10, 30, 100, 101])
def test_workers_are_shared_out(count: int) -> None:
    shares = [share(count, number) for number in range(HOSTS)]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1


def test_a_gap_counts_where_its_end_is_later_than_the_fault() -> None:
    assert longest_gap([0, 5, 6, 8, 8.5], 5.5) == 2
    assert longest_gap([0, 5], 5.5) == float("inf")
    assert longest_gap([], 0) == float("inf")


def test_the_model_is_held_against_the_largest_run() -> None:
    seen = {count: Idle(26, 0.3, 1 + count / 10, 2 + count / 5, 3.0 * count, 11.0 * count) for count in (10, 30, 100)}
    rows = modelled(seen)
    assert [row.what.split(" = ")[0] for row in rows[:-1]] == [
        "model: supervisor, %",
        "model: Redis, %",
        "model: through Redis, KB/s",
        "model: commands/s",
    ]
    redis = rows[1]
    assert redis.ours[0].value == pytest.approx(202)
    assert [figure.value for figure in redis.other] == [pytest.approx(22), pytest.approx(22)]
    assert "the bottleneck is Redis" in rows[-1].what
    assert rows[-1].ours[0].value == pytest.approx(490)
