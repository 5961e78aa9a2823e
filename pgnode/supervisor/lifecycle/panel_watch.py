"""Watches whether the panel still calls. A start may name a time (keep_alive) after which its silence counts."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

import structlog

from pgnode.bus.connection import BUS_ERRORS
from pgnode.os_support.clock import Clock

log = structlog.get_logger(__name__)

#: Pause between two readings of the workers' counter.
POLL_INTERVAL_SECONDS = 1.0


class Finding(enum.Enum):
    """What a reading of the counter brought to light."""

    NOTHING_NEW = enum.auto()
    WENT_AWAY = enum.auto()
    CAME_BACK = enum.auto()


class Silence:
    """Measures how long the panel has been silent. Pure: what was seen, and when, are arguments."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = 0.0
        self._limit_seconds = 0
        self.away = False

    def __repr__(self) -> str:
        return f"Silence({'away' if self.away else 'calling'}, limit {self._limit_seconds} s)"

    def read(self, now: float, limit_seconds: int, seen: object) -> Finding:
        """Take a reading of the counter.

        Args:
            now: Seconds on a clock that nobody sets.
            limit_seconds: The silence that is allowed; 0 = any.
            seen: What the counter says.

        Returns:
            What it means.
        """
        if seen != self._seen or limit_seconds != self._limit_seconds:
            # Another limit is another start, which is a call.
            self._seen, self._limit_seconds, self._since = seen, limit_seconds, now
            return self._become(away=False)
        return self._become(away=bool(limit_seconds) and now - self._since > limit_seconds)

    def unknown(self, now: float) -> None:
        """Count the silence from now: nobody can tell whether there were calls."""
        self._since = now

    def _become(self, *, away: bool) -> Finding:
        if away is self.away:
            return Finding.NOTHING_NEW
        self.away = away
        return Finding.WENT_AWAY if away else Finding.CAME_BACK


async def watch_panel(
    limit_seconds: Callable[[], int],
    read: Callable[[], Awaitable[object]],
    tell: Callable[[bool], Awaitable[None]],
    clock: Clock | None = None,
) -> None:
    """Watch the workers' counter for as long as a limit is set, until cancelled.

    Args:
        limit_seconds: The silence that is allowed now; 0 = any.
        read: Reads the counter. Raises BUS_ERRORS.
        tell: Called with whether the panel is away, at every change.
        clock: Measures the silence.
    """
    silence = Silence()
    time = clock if clock is not None else Clock()
    while True:
        limit = limit_seconds()
        try:
            finding = silence.read(time.now(), limit, await read() if limit else None)
        except BUS_ERRORS:
            silence.unknown(time.now())
            finding = Finding.NOTHING_NEW
        if finding is Finding.WENT_AWAY:
            log.warning("the panel is away: no call for longer than its keep_alive", keep_alive_seconds=limit)
            await tell(True)
        elif finding is Finding.CAME_BACK:
            log.info("the panel calls again" if limit else "nobody waits for the panel any more")
            await tell(False)
        await time.sleep(POLL_INTERVAL_SECONDS)
