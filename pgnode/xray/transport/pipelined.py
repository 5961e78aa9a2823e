"""The pipelined client: one HTTP/2 connection on the core's unix socket, for many calls of AlterInbound at a time.

It is there because it does the same call at least twice as fast as ``grpcio`` in the same run (``make bench`` prints both,
scenario ``transport``; docs/performance.md has the figures), and because the supervisor is smaller by 15 MB without that library.
Calls of other methods go through its sister, :mod:`pgnode.xray.transport.single_calls`.

What makes it quick is in pgnode.xray.transport.http2, the protocol without I/O. Here: the connection, which is made when it is
needed and made anew when the core sends GOAWAY or stream ids run out; the queue of calls; their deadlines. The requests of one
turn of the event loop are written at once, and a batch has one future, not one for each call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, cast

from pgnode.xray.transport.frames import MAX_STREAM_ID, NO_ERROR, Http2Error
from pgnode.xray.transport.http2 import Http2ClientConnection
from pgnode.xray.transport.outcome import GRPC_DEADLINE_EXCEEDED, GRPC_UNAVAILABLE, Failure

#: Calls under way at once; beyond that the core gets no faster (measured: 100 to 400 make no difference, 32 does).
MAX_OPEN: Final = 400
#: Time for a connection to be there and the core's SETTINGS to come.
CONNECT_SECONDS: Final = 5.0
#: Time for what is still to be written when a connection is closed.
CLOSE_SECONDS: Final = 1.0
#: A call that was certainly not carried out is sent again so often.
REFUSALS_MAX: Final = 3

NOT_BEGUN: Final = Failure(GRPC_DEADLINE_EXCEEDED, "not begun within the deadline")
NOT_ANSWERED: Final = Failure(GRPC_DEADLINE_EXCEEDED, "no answer within the deadline")


class _Batch:
    """Calls that were asked for together."""

    __slots__ = ("begun_at", "encode", "followers", "future", "left", "refusals", "results")

    def __init__(
        self, count: int, encode: Callable[[int], bytes], followers: Mapping[int, int], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.encode = encode
        self.followers = followers
        self.results: list[Failure | None] = [NOT_BEGUN] * count
        self.left = count
        self.refusals = 0
        self.begun_at = loop.time()
        self.future: asyncio.Future[None] = loop.create_future()


#: A call: its batch, and its number in it.
Call = tuple[_Batch, int]


class PipelinedGrpcClient:
    """Calls of one method of the core, many at a time. Belongs to the event loop of its first call."""

    #: A connection is closed when a call on it has had no answer in time, and nothing else has come meanwhile.
    _silence_ends = True

    def __init__(
        self, socket_path: Path | str, method: str, *, max_open: int = MAX_OPEN, last_stream_id: int = MAX_STREAM_ID
    ) -> None:
        self._socket_path = str(socket_path)
        self._method = method
        self._max_open = max_open
        self._last_stream_id = last_stream_id
        self._waiting: deque[Call] = deque()
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        #: The one in use and those that are only waited for.
        self._connections: set[_Connection] = set()
        self._closed = False
        self.connections_made = 0

    def __repr__(self) -> str:
        return f"<PipelinedGrpcClient {self._socket_path} {len(self._waiting)} waiting, {self._connection!r}>"

    async def run(
        self,
        count: int,
        encode: Callable[[int], bytes],
        deadline_seconds: float,
        followers: Mapping[int, int] | None = None,
    ) -> list[Failure | None]:
        """Carry out ``count`` calls; ``encode`` makes the message of each when it is begun. The result of each, in order.

        ``followers`` names calls that are begun only after another ended, whatever became of it: number -> number of the next
        one. After ``deadline_seconds`` all that have no result get GRPC_DEADLINE_EXCEEDED.
        """
        if not count:
            return []
        loop = asyncio.get_running_loop()
        batch = _Batch(count, encode, followers or {}, loop)
        if deadline_seconds <= 0:
            return batch.results
        begin: Iterable[int] = range(count)
        if batch.followers:
            behind = set(batch.followers.values())
            begin = [index for index in begin if index not in behind]
        self._waiting.extend([(batch, index) for index in begin])
        self._pump()
        timer = loop.call_later(deadline_seconds, self._expire, batch)
        try:
            await batch.future
        finally:
            timer.cancel()
            if batch.left:
                self._drop(batch)
        return batch.results

    async def aclose(self) -> None:
        """Close the connection; calls under way end as unavailable."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        for connection in list(self._connections):
            connection.close(NO_ERROR)
        self._fail_waiting("the client of the core is closed")

    # --- calls

    def _pump(self) -> None:
        """Begin what waits, as far as the connection takes it."""
        connection = self._connection
        if connection is None or connection.machine.draining:
            self._connection = None
            if self._waiting and self._connecting is None:
                if self._closed:
                    self._fail_waiting("the client of the core is closed")
                else:
                    self._connecting = asyncio.get_running_loop().create_task(self._connect())
            return
        waiting, machine = self._waiting, connection.machine
        may_begin = machine.can_begin
        while waiting and may_begin and not connection.paused:
            call = waiting.popleft()
            batch, index = call
            if batch.future.done():
                continue
            batch.results[index] = NOT_ANSWERED
            try:
                message = batch.encode(index)
            except Exception as error:
                batch.future.set_exception(error)
                continue
            may_begin = machine.begin(call, message)
        connection.flush()
        if waiting and machine.draining:
            self._pump()

    def _ended(self, call: Call, failure: Failure | None) -> None:
        batch, index = call
        batch.results[index] = failure
        batch.left -= 1
        if batch.followers:
            follower = batch.followers.get(index)
            if follower is not None:
                self._waiting.append((batch, follower))
        if not batch.left and not batch.future.done():
            batch.future.set_result(None)

    def _again(self, call: Call) -> None:
        """Send a call again which the core has certainly not carried out."""
        batch, index = call
        batch.refusals += 1
        if batch.refusals > REFUSALS_MAX * len(batch.results):
            self._ended(call, Failure(GRPC_UNAVAILABLE, "the core refused the call again and again"))
            return
        batch.results[index] = NOT_BEGUN
        self._waiting.appendleft(call)

    def _expire(self, batch: _Batch) -> None:
        if batch.future.done():
            return
        batch.future.set_result(None)
        # Not a word since this batch was asked for: the core hangs, or the connection does.
        silent = [item for item in self._connections if item.machine.open_count and item.received_at < batch.begun_at]
        self._drop(batch)
        if self._silence_ends:
            for connection in silent:
                connection.close(NO_ERROR)

    def _drop(self, batch: _Batch) -> None:
        """Forget a batch for which nobody waits any more."""
        self._waiting = deque(call for call in self._waiting if call[0] is not batch)
        for connection in self._connections:
            connection.machine.cancel({(batch, index) for index in range(len(batch.results))})
            connection.flush()
        self._pump()

    def _fail_waiting(self, text: str) -> None:
        failure = Failure(GRPC_UNAVAILABLE, text)
        while self._waiting:
            # Followers are put behind and fail in their turn.
            self._ended(self._waiting.popleft(), failure)

    # --- connections

    def _machine(self) -> Http2ClientConnection[Call]:
        return Http2ClientConnection(self._method, max_open=self._max_open, last_stream_id=self._last_stream_id)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        connection = _Connection(self, self._machine())
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_unix_connection(lambda: connection, self._socket_path)
                await connection.ready
        except (OSError, TimeoutError) as error:
            connection.close(NO_ERROR)
            self._connecting = None
            reason = getattr(error, "strerror", None) or str(error) or "no answer in time"
            self._fail_waiting(f"the core's API cannot be reached: {reason}")
            return
        except BaseException:
            connection.close(NO_ERROR)
            self._connecting = None
            raise
        self._connecting = None
        self.connections_made += 1
        if connection.machine.draining:
            # Good-bye before anything was asked: another connection would fare no better.
            self._fail_waiting("the core's API takes no calls")
            return
        self._connection = connection
        self._pump()

    def _received(self, connection: _Connection) -> None:
        machine = connection.machine
        for call, failure in machine.take_finished():
            self._ended(call, failure)
        if machine.refused:
            for call in reversed(machine.take_refused()):
                self._again(call)
        if machine.draining and not machine.open_count:
            connection.close(NO_ERROR)
        self._pump()
        connection.flush()

    def _lost(self, connection: _Connection, reason: str) -> None:
        self._connections.discard(connection)
        if self._connection is connection:
            self._connection = None
        for call in connection.machine.take_open():
            # Whether it was carried out is not known.
            self._ended(call, Failure(GRPC_UNAVAILABLE, reason))
        if not self._closed:
            self._pump()


class _Connection(asyncio.Protocol):
    """One connection: bytes between its socket and its machine."""

    def __init__(self, client: PipelinedGrpcClient, machine: Http2ClientConnection[Call]) -> None:
        self._client = client
        self.machine = machine
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reason = "the connection to the core ended"
        #: Done when the core's SETTINGS are there.
        self.ready: asyncio.Future[None] = self._loop.create_future()
        #: More is waiting to be sent than the socket takes.
        self.paused = False
        self.received_at = self._loop.time()

    def __repr__(self) -> str:
        return f"<_Connection {self.machine!r}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport by inheritance.
        self._transport = cast(asyncio.Transport, transport)
        self._client._connections.add(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.received_at = self._loop.time()
        try:
            self.machine.receive(data)
        except Http2Error as error:
            self._reason = f"the core's answer is no HTTP/2 that is understood: {error}"
            self.close(error.code, str(error))
            return
        if self.machine.ready and not self.ready.done():
            self.ready.set_result(None)
        self._client._received(self)

    def flush(self) -> None:
        """Send what the machine wants to be sent."""
        if self._transport is not None and (output := self.machine.take_output()):
            self._transport.write(output)

    def close(self, code: int, text: str = "") -> None:
        """Say good-bye and close; calls that are open end as unavailable."""
        self.machine.go_away(code, text)
        self.flush()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            # A core that hangs takes nothing: whatever is still to be sent is thrown away then.
            self._loop.call_later(CLOSE_SECONDS, transport.abort)
            self._gone()

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._gone()

    def _gone(self) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionResetError(self._reason))
        self._client._lost(self, self._reason)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._client._pump()
