"""Lines through what runs of several numbers of workers cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scale_model import Line, bottleneck, fitted


@given(st.floats(-50, 50), st.floats(-5, 5), st.sets(st.integers(1, 1_000), min_size=2, max_size=6))
def test_a_line_is_found_again(fixed: float, each: float, workers: set[int]) -> None:
    line = fitted([(count, fixed + each * count) for count in workers])
    assert line.fixed == pytest.approx(fixed, abs=1e-6)
    assert line.each == pytest.approx(each, abs=1e-6)


@pytest.mark.parametrize("points", [[], [(10, 1)], [(10, 1), (10, 2)]])
def test_one_number_of_workers_is_no_line(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="two different"):
        fitted(points)


def test_what_is_full_first_is_the_bottleneck() -> None:
    lines = {"supervisor": Line(1, 0.05), "Redis": Line(0.5, 0.2), "nothing": Line(3, 0)}
    name, workers = bottleneck(lines)
    assert name == "Redis"
    assert workers == pytest.approx(497.5)
    assert lines["Redis"].at(10) == 2.5
    assert lines["nothing"].workers_at(100) == float("inf")
