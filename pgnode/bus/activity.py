"""Whether the panel calls: workers raise a counter, at most once a second each, and the supervisor reads it.

The counter is not a time, so clocks of several hosts need not agree, and a Redis that came back empty only makes it
look as if somebody had called.
"""

from __future__ import annotations

import asyncio

import structlog
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.os_support.aio import end_tasks

log = structlog.get_logger(__name__)

#: Seconds between two times at which a worker tells of its calls, at least.
TELL_SECONDS = 1.0


class ActivityTeller:
    """A worker's side. :meth:`called` is cheap and never waits; belongs to one event loop.

    Args:
        url: Address of Redis.
        keys: The node's keys.
        tell_seconds: Seconds between two times at which calls are told, at least.
    """

    def __init__(self, url: str, keys: Keys, *, tell_seconds: float = TELL_SECONDS) -> None:
        self._keys = keys
        self._tell_seconds = tell_seconds
        self._client: Redis = connect(url, connections=1)
        self._next_at = 0.0
        self._telling: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"ActivityTeller({self._keys.activity})"

    def called(self) -> None:
        """Note that somebody with the key called just now."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._next_at and (self._telling is None or self._telling.done()):
            self._next_at = now + self._tell_seconds
            self._telling = loop.create_task(self._tell())

    async def _tell(self) -> None:
        try:
            await self._client.incr(self._keys.activity)
        except BUS_ERRORS as error:
            log.debug("the supervisor was not told of a call", error=str(error))

    async def close(self) -> None:
        """Disconnect."""
        if self._telling is not None:
            await end_tasks([self._telling])
        await self._client.aclose()


async def read_activity(redis: Redis, keys: Keys) -> int:
    """Return the counter; 0 before the first call. Raises BUS_ERRORS."""
    return int(await redis.get(keys.activity) or 0)
