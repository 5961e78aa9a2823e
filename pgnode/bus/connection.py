"""Connections to Redis or Valkey, with deadlines and without silent repetition."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

from pgnode.bus.links import SOCKET_TIMEOUT_SECONDS, make_pool
from pgnode.errors import SettingsError
from pgnode.settings.redis_address import ALLOWED
from pgnode.settings.shown import shown_url

#: What a command on the bus may raise when Redis is away, hangs or is restarting.
BUS_ERRORS = (RedisError, OSError, TimeoutError)


def connections_to(
    url: str, *, timeout_seconds: float = SOCKET_TIMEOUT_SECONDS, connections: int | None = None
) -> ConnectionPool:
    """Make what makes connections; none is made before the first one is needed.

    Args:
        url: Address of Redis: REDIS_URL with what is set beside it.
        timeout_seconds: Seconds that a command has; more than it blocks.
        connections: Connections at most; None: as many as are asked for.

    Returns:
        The pool.

    Raises:
        SettingsError: That is no such address.
    """
    try:
        pool = make_pool(url, timeout_seconds=timeout_seconds, connections=connections)
        # Connects to nothing: what of the address means nothing would be told at the first command, as anything but an error.
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, AttributeError):
        # What is said of it may hold the password.
        raise SettingsError(f"REDIS_URL={shown_url(url)} is not allowed: {ALLOWED}") from None
    return pool


def connect(url: str, *, timeout_seconds: float = SOCKET_TIMEOUT_SECONDS, connections: int = 8) -> Redis:
    """Make a client; no connection is made before the first command.

    A command is never repeated by the library: a push whose reply was lost would land twice.

    Args:
        url: Address of Redis: REDIS_URL with what is set beside it.
        timeout_seconds: Seconds that a command has; more than it blocks.
        connections: Connections at most.

    Returns:
        The client.

    Raises:
        SettingsError: That is no such address.
    """
    return Redis.from_pool(connections_to(url, timeout_seconds=timeout_seconds, connections=connections))


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
