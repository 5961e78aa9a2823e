"""An external Redis (REDIS_URL): waiting for it at the start, and a look at how it is set up."""

from __future__ import annotations

import asyncio

import structlog
from redis.asyncio import Redis

from pgnode.bus.access import Role
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.fitness import look_at
from pgnode.bus.keys import Keys
from pgnode.errors import ChildFailedError
from pgnode.os_support.aio import retry

log = structlog.get_logger(__name__)

#: Seconds within which it must answer at the start.
START_SECONDS = 10.0

#: Seconds between two attempts.
POLL_SECONDS = 0.2


async def wait_for_redis(
    redis: Redis, url: str, shown: str, keys: Keys, *, start_seconds: float = START_SECONDS
) -> None:
    """Wait until it can be used.

    Args:
        redis: The connection.
        url: Its address, with what is set beside it.
        shown: REDIS_URL as it may be shown, for errors.
        keys: The node's keys.
        start_seconds: Seconds that it has.

    Raises:
        SettingsError: It certainly never can; the text says what to do.
        ChildFailedError: It does not answer; the text says what to do.
    """
    reason = ""

    def note(error: BaseException) -> None:
        nonlocal reason
        reason = str(error)

    try:
        async with asyncio.timeout(start_seconds):
            await retry(
                lambda: look_at(url, shown, keys, Role.SUPERVISOR),
                BUS_ERRORS,
                pause_seconds=POLL_SECONDS,
                on_error=note,
            )
    except TimeoutError:
        raise ChildFailedError(
            f"Redis at REDIS_URL={shown} does not answer ({reason}): start it, correct REDIS_URL, "
            "or unset it for a Valkey of the node's own"
        ) from None
    await warn_of_eviction(redis)


async def warn_of_eviction(redis: Redis) -> None:
    """Say so where it may throw away whatever it likes when its memory is full: commands that wait are among that.

    Args:
        redis: The connection.
    """
    try:
        memory = await redis.info("memory")
    except BUS_ERRORS:
        # Also where the account may not ask.
        return
    policy = str(memory.get("maxmemory_policy", ""))
    if policy.startswith("allkeys") and int(memory.get("maxmemory", 0)):
        log.warning(
            "Redis may evict what is not read yet; calls are slow then, or fail",
            policy=policy,
            do="set maxmemory-policy to noeviction or volatile-ttl",
        )
