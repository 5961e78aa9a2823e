"""Three stops and starts within a minute ask for a new core."""

from __future__ import annotations

import pytest

from pgnode.supervisor.lifecycle.new_core_requests import NewCoreRequests


@pytest.mark.parametrize(
    ("moments", "meant"),
    [
        ([0, 10, 20], [False, False, True]),
        ([0, 30, 60], [False, False, True]),
        ([0, 30, 61], [False, False, False]),
        ([0, 50, 61, 62], [False, False, False, True]),
        ([0, 1, 2, 3, 4, 5], [False, False, True, False, False, True]),
    ],
)
def test_the_third_within_a_minute_is_meant(moments: list[float], meant: list[bool]) -> None:
    requests = NewCoreRequests()
    assert [requests.restarted(now) for now in moments] == meant
    assert "NewCoreRequests" in repr(requests)


def test_a_start_of_another_kind_breaks_the_row() -> None:
    requests = NewCoreRequests()
    for now in (0, 1):
        assert not requests.restarted(now)
    requests.started_otherwise()
    assert [requests.restarted(now) for now in (2, 3, 4)] == [False, False, True]
