"""A connection to Redis that hears one channel. Messages are handed over in the moment in which they are read.

redis-py's own subscription hands a message over some turns of the event loop after it was read, and does not say that it has one.
Here a message is handed over at once. So only what waits in the socket has come and was not heard yet, and that can be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from pgnode.bus.connection import connections_to
from pgnode.bus.links import SOCKET_TIMEOUT_SECONDS
from pgnode.bus.pipelined_redis import pack
from pgnode.bus.redis_compat import LoggedInTransport, log_in
from pgnode.os_support.connections import unread_bytes

#: No file has this number.
_CLOSED: Final = -1


class Subscription:
    """Hears the channel from :meth:`open` on until the connection is lost. Belongs to one event loop.

    Args:
        url: Address of Redis.
        channel: The channel.
        heard: Called with each message, within the event loop; may raise nothing.
        lost: Called when a connection that was open is lost.
        timeout_seconds: Seconds that it takes to open it, at most.
    """

    def __init__(
        self,
        url: str,
        channel: str,
        heard: Callable[[bytes], None],
        lost: Callable[[], None],
        *,
        timeout_seconds: float = SOCKET_TIMEOUT_SECONDS,
    ) -> None:
        self._pool = connections_to(url, timeout_seconds=timeout_seconds)
        self._channel = channel
        self._heard = heard
        self._lost = lost
        self._timeout_seconds = timeout_seconds
        self._ear: _Ear | None = None

    def __repr__(self) -> str:
        return f"Subscription({self._channel!r}, {'open' if self.is_open else 'closed'})"

    @property
    def is_open(self) -> bool:
        """Whether messages are heard now."""
        return self._ear is not None and self._ear.error is None

    @property
    def error(self) -> BaseException | None:
        """Why the connection was lost; None while it is open."""
        return self._ear.error if self._ear is not None else None

    def has_unheard(self) -> bool:
        """Tell whether something has come that is read in the next turn of the event loop."""
        ear = self._ear
        return ear is not None and ear.number != _CLOSED and unread_bytes(ear.number) > 0

    async def open(self) -> None:
        """Connect and subscribe; an earlier connection is closed.

        Raises:
            RedisError: Redis refused (one of BUS_ERRORS).
            OSError: It is away.
            TimeoutError: It does not answer.
        """
        self.close()
        async with asyncio.timeout(self._timeout_seconds):
            ear = _Ear(await log_in(self._pool), self._heard, self._lost)
            try:
                await ear.subscribe(self._channel)
            except BaseException:
                ear.end(RedisConnectionError("Redis did not confirm the subscription"))
                raise
        self._ear = ear

    def close(self) -> None:
        """Hear nothing any more."""
        if self._ear is not None:
            self._ear.end(RedisConnectionError("the connection to Redis was closed"))


class _Ear(asyncio.Protocol):
    """The bytes of one connection that redis-py has logged in."""

    def __init__(self, connection: LoggedInTransport, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._connection = connection
        self._heard = heard
        self._lost = lost
        self._reader = hiredis.Reader(protocolError=RedisConnectionError, replyError=ResponseError)
        self._subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Why it cannot be used any more; None while it can.
        self.error: BaseException | None = None
        found = connection.transport.get_extra_info("socket")
        #: File number of its socket.
        self.number = found.fileno() if found is not None else _CLOSED
        connection.transport.set_protocol(self)

    async def subscribe(self, channel: str) -> None:
        """Send the command, and wait for what Redis says to it. Raises RedisError."""
        if self.error is None:
            self._connection.transport.write(b"".join(pack(("SUBSCRIBE", channel))))
            await self._subscribed
        if self.error is not None:
            raise self.error

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while self.error is None and (said := self._reader.gets()) is not False:
                self._take(said)
        except RedisError as error:
            self.end(error)

    def _take(self, said: Any) -> None:
        """Take one reply: an error, or a list of what it is, the channel, and the message. Raises RedisError."""
        if isinstance(said, RedisError):
            raise said
        if said[0] == b"message":
            self._heard(said[2])
        elif said[0] == b"subscribe" and not self._subscribed.done():
            self._subscribed.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.end(RedisConnectionError(f"the connection to Redis ended: {error or 'closed by the server'}"))

    def end(self, error: BaseException) -> None:
        """Close the connection; whoever waits is told why."""
        if self.error is not None:
            return
        self.error = error
        # The number may soon be that of another file.
        self.number = _CLOSED
        self._connection.transport.abort()
        if self._subscribed.done():
            self._lost()
        else:
            self._subscribed.set_result(None)
