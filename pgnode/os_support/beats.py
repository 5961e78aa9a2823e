"""Pauses that end together: what a process does now and then is done at the same moments, so that it wakes up less often."""

from __future__ import annotations

import asyncio
import math
import os
from typing import Final

#: Pauses of so many seconds and their multiples end together.
BEAT_SECONDS: Final = 0.25

#: A pause is at least such a part of what was asked for.
_SHORTEST: Final = 0.5

#: Spreads the pids over a beat (the golden ratio's fraction): the processes of many workers do not wake up at one moment.
_SPREAD: Final = 0.6180339887498949


def next_beat(now: float, seconds: float, phase: float) -> float:
    """Return when a pause ends. Pure.

    Args:
        now: Seconds on a clock that nobody sets.
        seconds: How long the pause is, in the mean of many.
        phase: Seconds after a whole multiple of ``seconds`` at which pauses end.

    Returns:
        A time on that clock, ``seconds`` times 0.5 to 1.5 from now.
    """
    return math.ceil((now + seconds * _SHORTEST - phase) / seconds) * seconds + phase


async def pause_to_beat(seconds: float) -> None:
    """Wait until the next of the moments that are so many seconds apart, half as long at least. Takes no time where it is 0.

    Args:
        seconds: Seconds between two moments; a multiple of :data:`BEAT_SECONDS` meets other pauses.
    """
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(next_beat(now, seconds, own_phase()) - now if seconds > 0 else 0)


def own_phase() -> float:
    """Return this process's phase within a beat, in seconds."""
    return os.getpid() * _SPREAD % 1.0 * BEAT_SECONDS
