"""Asks a server one thing, over a connection that is made for it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from pgnode.settings.redis_address import Host


async def ask(kind: type[Connection], arguments: Mapping[str, Any], host: Host, command: Sequence[str]) -> Any:
    """Ask one thing.

    Args:
        kind: How to connect.
        arguments: What such a connection takes beside host and port.
        host: The server.
        command: The command and its arguments.

    Returns:
        The answer.

    Raises:
        RedisError: It refuses, or is away.
        OSError: It is away.
    """
    connection = kind(**arguments, host=host[0], port=host[1])
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command(*command)
        return await connection.read_response()
    finally:
        with contextlib.suppress(RedisError, OSError):
            await connection.disconnect(nowait=True)
