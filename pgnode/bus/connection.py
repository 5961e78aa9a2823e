"""Connections to Redis or Valkey, with deadlines and without silent repetition."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from pgnode.errors import SettingsError
from pgnode.settings.shown import shown_url

#: What a command on the bus may raise when Redis is away, hangs or is restarting.
BUS_ERRORS = (RedisError, OSError, TimeoutError)

#: A Redis that does not answer within this time is treated as away: callers get their 503 within 3 s.
SOCKET_TIMEOUT_SECONDS = 2.0


def connect(url: str, *, timeout_seconds: float = SOCKET_TIMEOUT_SECONDS, connections: int = 8) -> Redis:
    """Make a client; no connection is made before the first command.

    A command is never repeated by the library: a push whose reply was lost would land twice.

    Args:
        url: Address of Redis: redis://, rediss:// or unix://.
        timeout_seconds: Seconds that a command has; more than it blocks.
        connections: Connections at most.

    Returns:
        The client.

    Raises:
        SettingsError: That is no such address.
    """
    try:
        client: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            max_connections=connections,
            health_check_interval=0,
        )
        # Connects to nothing: what of the address means nothing would be told at the first command, as anything but an error.
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, AttributeError):
        # What is said of it may hold the password.
        raise SettingsError(
            f"REDIS_URL={shown_url(url)} is not allowed: write redis://:PASSWORD@HOST:PORT/NUMBER, rediss://… or unix:///PATH"
        ) from None
    return client


async def ping_anew(url: str) -> None:
    """Ask Redis for a sign of life, over a connection that is made for it.

    Args:
        url: Address of Redis.

    Raises:
        BUS_ERRORS: There is none.
    """
    client = connect(url, connections=1)
    try:
        await client.ping()
    finally:
        await client.aclose()


def stream_entries(answer: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return the entries in redis-py's answer to an XREAD or XREADGROUP of one stream, as (entry id, fields).

    An entry that was delivered, but is deleted by now, has no fields.
    """
    if not answer:
        return []
    return [(entry_id.decode(), fields or {}) for entry_id, fields in answer[0][1]]
