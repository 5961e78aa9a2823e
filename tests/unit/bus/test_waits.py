"""What is promised to callers of how long a worker's client waits."""

from __future__ import annotations

from pgnode.bus.links import SOCKET_TIMEOUT_SECONDS
from pgnode.bus.waits import CLIENT_WAITS, ClientWaits


def test_callers_are_told_within_three_seconds_that_the_bus_is_away() -> None:
    """One that refuses connections, and one that hangs: when sending, and in a blocking read."""
    assert CLIENT_WAITS.away_seconds + CLIENT_WAITS.retry_seconds < 3
    assert SOCKET_TIMEOUT_SECONDS < 3
    assert CLIENT_WAITS.block_seconds < CLIENT_WAITS.hanging_seconds < 3


def test_a_hanging_bus_is_told_from_one_that_has_nothing_to_say() -> None:
    assert ClientWaits(block_seconds=0.1).hanging_seconds > 1
