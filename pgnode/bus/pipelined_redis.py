"""A connection to Redis for what is done all the time: commands and replies of each group of calls, reports, polls of snapshots.

redis-py makes the connection (addresses, TLS, login) and the commands; everything between is done by hiredis alone: it packs
and parses in C, and replies go to the callers in order. A round trip costs 11 µs of CPU instead of 50 to 65, and the
transaction that ends a group of changes 20 instead of 155 (measured, redis-py 8.1, hiredis 3.5). Whatever is done seldom
uses :func:`pgnode.bus.connection.connect`, and a channel is heard by :mod:`pgnode.bus.subscription`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

import hiredis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from pgnode.bus.connection import connections_to
from pgnode.bus.finding import is_elsewhere
from pgnode.bus.links import SOCKET_TIMEOUT_SECONDS
from pgnode.bus.redis_compat import Args, LoggedInTransport, commands_of, log_in

#: Bytes of an argument from which on it is sent as it is, and never copied: a caller's message of 32 MiB would hold up the loop.
LARGE_BYTES = 64 * 1024

#: What Redis takes and stores in a second at least: large transactions have more time.
BYTES_PER_SECOND = 10_000_000


class PipelinedRedis:
    """One connection, made when it is needed. Belongs to the event loop of its first call; calls may overlap.

    Every call may raise BUS_ERRORS; nothing is ever sent twice. After a timeout the connection is given up, since replies are
    told apart by their order alone; the next call makes another one. A connection that is being made is not given up with the
    call that it is made for: each step of it has a limit of its own, and on a machine where all of them together take longer than
    a call may, it would never be there.
    """

    def __init__(self, url: str, *, timeout_seconds: float = SOCKET_TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._pool = connections_to(url, timeout_seconds=timeout_seconds)
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[_Wire] | None = None

    def __repr__(self) -> str:
        return f"<PipelinedRedis {'idle' if self._wire is None else 'open'}>"

    def drop(self) -> None:
        """Close the connection; calls under way end as failed, the next one makes another connection."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        self._give_up()

    def _give_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort(RedisConnectionError("the connection to Redis was closed"))

    async def execute(self, *args: bytes | str | int | float) -> Any:
        """Send one command; returns its reply: bytes, int, None, or lists of these (RESP 2)."""
        [reply] = await self.pipeline([args])
        return reply

    async def pipeline(self, commands: Iterable[Args]) -> list[Any]:
        """Send several commands; returns their replies, or raises the first error among them after all have come."""
        packed = [pack(args) for args in commands]
        if not packed:
            return []
        try:
            size = sum([len(part) for parts in packed for part in parts])
            async with asyncio.timeout(self._timeout_seconds + size / BYTES_PER_SECOND):
                wire = self._wire
                if wire is None or wire.lost is not None:
                    wire = await self._connected()
                replies = await wire.send(packed)
        except TimeoutError:
            self._give_up()
            raise
        for reply in replies:
            if isinstance(reply, RedisError):
                raise self._refused(reply)
        return replies

    def _refused(self, error: RedisError) -> RedisError:
        """Give the connection up where another server has the keys; return what is to be raised."""
        if not is_elsewhere(error):
            return error
        self._give_up()
        return RedisConnectionError(f"another server has the keys ({error})")

    async def transaction(self, pipe: Pipeline) -> list[Any]:
        """Do what was put into a pipeline, all of it or nothing; returns the replies."""
        commands = commands_of(pipe)
        if not commands:
            return []
        replies = (await self.pipeline([("MULTI",), *commands, ("EXEC",)]))[-1]
        for reply in replies or ():
            if isinstance(reply, RedisError):
                raise reply
        return list(replies or ())

    async def _connected(self) -> _Wire:
        connecting = self._connecting
        if connecting is None or connecting.done():
            connecting = self._connecting = asyncio.create_task(self._connect())
            # Nobody may be waiting any more when it fails.
            connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([connecting])
        if connecting.cancelled():
            raise RedisConnectionError("the connection to Redis was closed")
        return connecting.result()

    async def _connect(self) -> _Wire:
        wire = self._wire = _Wire(await log_in(self._pool))
        return wire


def pack(args: Args) -> list[bytes]:
    """Pack a command.

    Args:
        args: The command.

    Returns:
        What is to be sent, in order: one piece, or several where an argument is large.
    """
    for arg in args:
        # In no generator: a group of changes has hundreds.
        if isinstance(arg, bytes) and len(arg) >= LARGE_BYTES:
            break
    else:
        return [hiredis.pack_command(tuple(args))]  # type: ignore[arg-type]
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        head = b"$%d\r\n" % len(data)
        if len(data) < LARGE_BYTES:
            parts[-1] += head + data + b"\r\n"
        else:
            parts[-1] += head
            parts += (data, b"\r\n")
    return parts


class _Wire(asyncio.Protocol):
    """The bytes of one connection that redis-py has logged in."""

    def __init__(self, connection: LoggedInTransport) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._reader = hiredis.Reader(protocolError=RedisConnectionError, replyError=ResponseError)
        #: Who waits for how many replies, oldest first.
        self._waiting: deque[tuple[int, list[Any], asyncio.Future[list[Any]]]] = deque()
        #: Why it cannot be used any more; None while it can.
        self.lost: BaseException | None = None
        self._transport.set_protocol(self)

    def send(self, packed: list[list[bytes]]) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        if self.lost is not None:
            future.set_exception(RedisConnectionError(str(self.lost)))
            return future
        self._waiting.append((len(packed), [], future))
        parts = [part for parts in packed for part in parts]
        if len(parts) == 1:
            self._transport.write(parts[0])
        elif len(parts) == len(packed):
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)
        return future

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while waiting:
                count, replies, future = waiting[0]
                reply = reader.gets()
                if reply is False:
                    return
                replies.append(reply)
                if len(replies) == count:
                    waiting.popleft()
                    if not future.done():
                        future.set_result(replies)
        except RedisError as error:
            self.abort(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.abort(RedisConnectionError(f"the connection to Redis ended: {error or 'closed by the server'}"))

    def abort(self, error: BaseException) -> None:
        if self.lost is not None:
            return
        self.lost = error
        self._transport.abort()
        while self._waiting:
            _, _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)


def entries_of(answer: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return the entries in the reply to an XREAD or XREADGROUP of one stream, as (entry id, fields).

    An entry that was delivered, but is deleted by now, has no fields.
    """
    if not answer:
        return []
    return [
        (entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {})
        for entry_id, flat in answer[0][1]
    ]
