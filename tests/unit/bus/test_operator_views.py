"""What a running node says to an operator's command comes back as it was."""

from __future__ import annotations

import pytest

from pgnode.bus.operator_views import UserDrift


@pytest.mark.parametrize(
    "drift",
    [
        UserDrift(frozenset(), frozenset(), frozenset()),
        UserDrift(frozenset({"alice", "b\u00f6b"}), frozenset({"carol"}), frozenset({"b\u00f6b"})),
    ],
)
def test_the_drift_comes_back_as_it_was(drift: UserDrift) -> None:
    assert UserDrift.decode(drift.encode()) == drift
