"""How long an event loop was silent."""

from __future__ import annotations

import time

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


async def test_what_is_long_ago_is_forgotten() -> None:
    lag = LoopLag(tick_seconds=0.0005, kept=5)
    lag.start()
    try:
        end = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < end:
            pass
        await eventually(lambda: lag.longest_seconds, "the silence is known")
        before = lag.longest_seconds
        await eventually(lambda: lag.longest_seconds < before, "it is forgotten")
    finally:
        lag.stop()
