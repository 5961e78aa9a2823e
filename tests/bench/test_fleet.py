"""The pure parts of the scenario ``fleet``."""

from __future__ import annotations

import pytest

from bench.scenarios.fleet import CHANGES_A_SECOND, Cost, on_paper


def test_what_a_million_users_mean_on_paper() -> None:
    """A node with all of them reads fifty times as much as one with its share, and has fifty times the changes."""
    shared, everywhere = on_paper(Cost(reading_ms=50, change_ms=2, answer_mb=1))
    values = [[figure.value for figure in row.ours] for row in (shared, everywhere)]
    changes, percent, calls, megabytes = values[0]
    assert changes == pytest.approx(CHANGES_A_SECOND / 50)
    assert percent == pytest.approx(1.0 + changes * 0.2)
    assert calls == pytest.approx(CHANGES_A_SECOND)
    assert megabytes == pytest.approx(10)
    assert values[1] == [pytest.approx(50 * value) for value in values[0]]
