"""Percentiles and the order of turns."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.samples import middle, percentile, share_of, turns

samples = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)


@given(samples, st.floats(0, 1))
def test_percentile_is_a_sample_that_enough_samples_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) <= share * len(values)


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 50), (0.99, 99), (1, 100)])
def test_percentile_of_a_hundred(share: float, expected: float) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_percentile_without_samples_and_of_a_wrong_share() -> None:
    assert math.isnan(percentile([], 0.5))
    with pytest.raises(ValueError, match="between 0 and 1, not 99"):
        percentile([1.0], 99)


def test_the_middle_leaves_out_a_quarter_at_either_end() -> None:
    assert middle([900.0, 1.0, 3.0, 2.0, 0.0, 4.0, -900.0, 2.0]) == 2.0
    assert middle([1.0, 4.0]) == 2.5  # too few to leave one out
    assert math.isnan(middle([]))


def test_share_of_nothing_is_no_number() -> None:
    assert share_of(4, 8) == 0.5
    assert math.isnan(share_of(4, 0))


@given(st.lists(st.integers(), unique=True, max_size=5), st.integers(0, 6))
def test_each_side_has_one_turn_a_round(sides: list[int], rounds: int) -> None:
    order = list(turns(sides, rounds))
    size = len(sides)
    for number in range(rounds):
        assert sorted(order[number * size : (number + 1) * size]) == sorted(sides)


def test_the_first_side_of_a_round_changes() -> None:
    assert list(turns("AB", 3)) == list("ABBAAB")
