"""Rows of bars."""

from __future__ import annotations

import pytest

from pgnode.cli.sparkline import sparkline


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([], 4, "    "),
        ([0, 0], 4, "  ▁▁"),
        ([0, 1, 2, 7], 4, "▁▂▃█"),
        ([9, 0, 1, 2, 7], 4, "▁▂▃█"),
        ([5.0], 1, "█"),
        ([5.0], 0, ""),
        ([5.0], -3, ""),
    ],
)
def test_bars(values: list[float], width: int, bars: str) -> None:
    assert sparkline(values, width) == bars


def test_without_more_than_ascii() -> None:
    assert sparkline([0, 7, 3], 4, plain=True) == " .@="
