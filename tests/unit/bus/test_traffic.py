"""How old figures are, by Redis's clock."""

from __future__ import annotations

import pytest

from pgnode.bus.snapshots import Polled


@pytest.mark.parametrize(
    ("age_ms", "sent_at_ms", "now_ms", "seconds"),
    [
        (None, 1000, 5000, None),
        (200, 1000, 5000, 4.2),
        (200, 5000, 1000, 0.2),  # the store's clock was set back
        (200, 0, 5000, 0.2),  # it was not known
    ],
)
def test_the_age_of_a_reading_by_the_stores_clock(
    age_ms: int | None, sent_at_ms: int, now_ms: float, seconds: float | None
) -> None:
    assert Polled(age_ms, 5000, "", sent_at_ms=sent_at_ms).age_seconds(now_ms) == seconds
