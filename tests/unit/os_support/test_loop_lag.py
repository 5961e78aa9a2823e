"""How long an event loop was silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from pgnode.os_support.loop_lag import LoopLag
from tests.support.polling import eventually

SILENCE_SECONDS = 0.05


async def test_a_silence_is_measured() -> None:
    lag = LoopLag(tick_seconds=0.001, kept=1000)
    lag.start()
    try:
        assert lag.longest_seconds == 0
        end = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < end:
            pass
        await eventually(lambda: lag.longest_seconds > 0.9 * SILENCE_SECONDS - 0.001, "the silence is known")
    finally:
        lag.stop()
        lag.stop()
    assert repr(lag).startswith("LoopLag(0.")


class SteppedLoop:
    """An event loop whose clock stands still between two signs of life."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self._due = 0.0
        self._tick: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self.seconds

    def call_at(self, due: float, call: Callable[..., None], *arguments: Any) -> mock.Mock:
        self._due, self._tick = due, lambda: call(*arguments)
        return mock.Mock()

    def go_on(self, late: float) -> None:
        """Let the next sign of life come so many seconds late."""
        self.seconds = self._due + late
        self._tick()


def test_what_is_long_ago_is_forgotten() -> None:
    loop, lag = SteppedLoop(), LoopLag(tick_seconds=1.0, kept=3)
    with mock.patch("asyncio.get_running_loop", return_value=loop):
        lag.start()
        for late, longest in ((0.1, 0.1), (7.0, 7.0), (0.2, 7.0), (0.3, 7.0), (0.1, 0.3)):
            loop.go_on(late)
            assert lag.longest_seconds == pytest.approx(longest)
        lag.stop()
