"""Does the panel still call? A start may name a time (keep_alive) after which its silence counts."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable

import structlog

from pgnode.bus.connection import BUS_ERRORS

log = structlog.get_logger(__name__)

#: Pause between two looks at the workers' counter.
LOOK_SECONDS = 1.0


class Verdict(enum.Enum):
    """What a look brought to light."""

    NOTHING_NEW = enum.auto()
    WENT_AWAY = enum.auto()
    CAME_BACK = enum.auto()


class Silence:
    """Measures it. Pure: what was seen, and when, are arguments."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = 0.0
        self._limit_seconds = 0
        self.away = False

    def __repr__(self) -> str:
        return f"Silence({'away' if self.away else 'calling'}, limit {self._limit_seconds} s)"

    def look(self, now: float, limit_seconds: int, seen: object) -> Verdict:
        """At ``now`` (monotonic seconds) the counter is ``seen``, and a silence of ``limit_seconds`` (0 = any) is allowed."""
        if seen != self._seen or limit_seconds != self._limit_seconds:
            # Another limit is another start, which is a call.
            self._seen, self._limit_seconds, self._since = seen, limit_seconds, now
            return self._become(away=False)
        return self._become(away=bool(limit_seconds) and now - self._since > limit_seconds)

    def unknown(self, now: float) -> None:
        """Nobody can tell whether there were calls: silence is counted from now."""
        self._since = now

    def _become(self, *, away: bool) -> Verdict:
        if away is self.away:
            return Verdict.NOTHING_NEW
        self.away = away
        return Verdict.WENT_AWAY if away else Verdict.CAME_BACK


async def watch_panel(
    limit_seconds: Callable[[], int], read: Callable[[], Awaitable[object]], tell: Callable[[bool], Awaitable[None]]
) -> None:
    """Look at the workers' counter (``read``) for as long as a limit is set; ``tell(away)`` at every change."""
    silence = Silence()
    loop = asyncio.get_running_loop()
    while True:
        limit = limit_seconds()
        try:
            verdict = silence.look(loop.time(), limit, await read() if limit else None)
        except BUS_ERRORS:
            silence.unknown(loop.time())
            verdict = Verdict.NOTHING_NEW
        if verdict is Verdict.WENT_AWAY:
            log.warning("the panel is away: no call for longer than its keep_alive", keep_alive_seconds=limit)
            await tell(True)
        elif verdict is Verdict.CAME_BACK:
            log.info("the panel calls again" if limit else "nobody waits for the panel any more")
            await tell(False)
        await asyncio.sleep(LOOK_SECONDS)
