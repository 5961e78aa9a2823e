"""Everything that the node uses of redis-py beyond what it promises; nothing private of it is used elsewhere.

redis-py makes a connection (addresses, TLS, login), and its pipelines make commands; what lies between is done by
:mod:`pgnode.bus.pipelined_redis`. The tests of this module hold each private member to what is relied on here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import cast

from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError

from pgnode import dependencies

#: A command and its arguments.
Args = Sequence[bytes | str | int | float]


def check() -> None:
    """Refuse versions of redis-py and its parser whose insides are not known.

    Raises:
        DependencyError: One of them is missing or has another version.
    """
    dependencies.check("redis", "hiredis")


def commands_of(pipe: Pipeline) -> list[Args]:
    """Return the commands that were put into a pipeline, in their order; it keeps them."""
    return [args for args, _options in pipe.command_stack]


class LoggedInTransport:
    """A connection that redis-py has made and logged in, without redis-py.

    Attributes:
        transport: The connection. Nothing was read of what comes after the login.

    Args:
        connection: What redis-py made; nothing is left to it.

    Raises:
        ConnectionResetError: The connection has ended.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        # Kept, since it closes the transport when it goes. For the same reason it is taken away from redis-py's object.
        self._writer, connection._writer, connection._reader = connection._writer, None, None
        if self._writer is None:
            raise ConnectionResetError("the connection to Redis ended at once")
        # uvloop's transports are no asyncio.Transport by inheritance.
        self.transport = cast(asyncio.Transport, self._writer.transport)


async def log_in(pool: ConnectionPool) -> LoggedInTransport:
    """Make a connection as the pool would, and take it over.

    Args:
        pool: Knows the address, and how to log in. It does not count this connection.

    Returns:
        The connection, on which nothing is under way.

    Raises:
        RedisError: Redis refused.
        OSError: Redis is away.
    """
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        return LoggedInTransport(connection)
    except BaseException:
        with contextlib.suppress(RedisError, OSError):
            await connection.disconnect(nowait=True)
        raise
