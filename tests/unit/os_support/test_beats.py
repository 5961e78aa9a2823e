"""Pauses that end together."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.beats import BEAT_SECONDS, next_beat, own_phase, pause_to_beat


@given(
    now=st.floats(0, 1e7),
    beats=st.integers(1, 50),
    phase=st.floats(0, BEAT_SECONDS),
)
def test_a_pause_is_half_to_one_and_a_half_of_what_was_asked_for(now: float, beats: int, phase: float) -> None:
    seconds = beats * BEAT_SECONDS
    pause = next_beat(now, seconds, phase) - now
    assert 0.5 * seconds - 1e-6 <= pause <= 1.5 * seconds + 1e-6


@given(now=st.floats(0, 1e6), phase=st.floats(0, BEAT_SECONDS))
def test_pauses_meet_and_are_as_long_as_asked_for_in_the_mean(now: float, phase: float) -> None:
    first = next_beat(now, 1.0, phase)
    assert abs(next_beat(first, 1.0, phase) - first - 1.0) < 1e-6
    beats = (first - next_beat(now, BEAT_SECONDS, phase)) / BEAT_SECONDS
    assert abs(beats - round(beats)) < 1e-6


async def test_it_waits() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await pause_to_beat(0.01)
    assert loop.time() - begun >= 0.004
    await pause_to_beat(0)
    assert 0 <= own_phase() < BEAT_SECONDS
