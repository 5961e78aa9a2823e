"""An external Redis (REDIS_URL): waiting for it at the start."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS
from pgnode.errors import ChildFailedError
from pgnode.os_support.aio import retry
from pgnode.settings import shorten

#: Seconds within which it must answer at the start.
START_SECONDS = 10.0

#: Seconds between two attempts.
POLL_SECONDS = 0.2


async def wait_for_redis(redis: Redis, url: str, *, start_seconds: float = START_SECONDS) -> None:
    """Wait until it answers.

    Args:
        redis: The connection.
        url: REDIS_URL, for the error.
        start_seconds: Seconds that it has.

    Raises:
        ChildFailedError: It does not answer; the text says what to do.
    """
    reason = ""

    def note(error: BaseException) -> None:
        nonlocal reason
        reason = str(error)

    try:
        async with asyncio.timeout(start_seconds):
            await retry(redis.ping, BUS_ERRORS, pause_seconds=POLL_SECONDS, on_error=note)
    except TimeoutError:
        raise ChildFailedError(
            f"Redis at REDIS_URL={shorten(url)} does not answer ({reason}): start it, correct REDIS_URL, "
            "or unset it for a Valkey of the node's own"
        ) from None
