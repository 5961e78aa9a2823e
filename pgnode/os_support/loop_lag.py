"""How long an event loop was silent: what it did in one piece, or what kept its process from running."""

from __future__ import annotations

import asyncio
from collections import deque

from pgnode.os_support.beats import BEAT_SECONDS, next_beat, own_phase

#: Seconds between two signs of life.
TICK_SECONDS = BEAT_SECONDS

#: Signs of life within which the longest silence is looked for: 15 s.
KEPT = 60


class LoopLag:
    """Measures the silences of one event loop from :meth:`start` to :meth:`stop`.

    Args:
        tick_seconds: Seconds between two signs of life.
        kept: Signs of life that are remembered.
    """

    def __init__(self, *, tick_seconds: float = TICK_SECONDS, kept: int = KEPT) -> None:
        self._tick_seconds = tick_seconds
        self._late: deque[float] = deque(maxlen=kept)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def __repr__(self) -> str:
        return f"LoopLag({self.longest_seconds:.3f} s)"

    @property
    def longest_seconds(self) -> float:
        """The longest silence of late; seconds by which a sign of life was late."""
        return max(self._late, default=0.0)

    def start(self) -> None:
        """Begin to measure."""
        loop = asyncio.get_running_loop()
        self._due = next_beat(loop.time(), self._tick_seconds, own_phase())
        self._timer = loop.call_at(self._due, self._tick, loop)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        late = max(0.0, loop.time() - self._due)
        self._late.append(late)
        if late >= self._tick_seconds / 2:
            self.start()
        else:
            self._due += self._tick_seconds
            self._timer = loop.call_at(self._due, self._tick, loop)
