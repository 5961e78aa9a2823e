"""The gRPC face of the node: every method of the table as ``service.NodeService``, messages in and out as bytes.

The key is checked when a call is opened, before anything of it is read: a call is refused by a handler that never reads.
All methods are registered as streams from the caller, also those that take one message. That is the same on the wire, and
here it leaves reading to this file: a caller that opens a call and sends nothing is told so in time, which gRPC's own
unary handlers would wait for without end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import structlog
from grpc import aio

from pgnode.api.auth import WRONG_KEY, KeyCheck
from pgnode.api.grpc.backpressure import LargeResponseLimiter
from pgnode.api.grpc.errors import Context, refuse, refusing
from pgnode.api.grpc.limits import ConcurrencyLimit
from pgnode.api.methods import METHODS, Method
from pgnode.api.service import deadline as budget
from pgnode.api.service.node_service import BookedAnswer, LogEntry, NodeService
from pgnode.api.service.tracked import TrackedResponse
from pgnode.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NodeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from pgnode.wire import service_pb2 as pb

log = structlog.get_logger(__name__)

SERVICE = "service.NodeService"

#: Seconds that a stream from the caller may last in all, however steadily it comes.
STREAM_SECONDS = 3600.0

#: What reads are made of, which is never refused for want of room: a panel takes a refused probe for a dead node.
PROBES = frozenset({"GetBaseInfo", "GetBackendStats"})

Respond = Callable[[Context], Awaitable[bytes]]


class GrpcHandlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Finds the handler of a call. ``open_handlers`` (by path) need no key, ``more_handlers`` do."""

    def __init__(
        self,
        service: NodeService,
        *,
        api_key: str,
        body_timeout_seconds: float,
        max_calls: int,
        max_streams: int,
        open_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]] | None = None,
        more_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]] | None = None,
    ) -> None:
        self._service = service
        self._key_ok = KeyCheck(api_key)
        self._timeout_seconds = body_timeout_seconds
        self._calls = ConcurrencyLimit(max_calls, "calls", "GRPC_MAX_CALLS")
        self._viewers = ConcurrencyLimit(max_streams, "log viewers", "GRPC_MAX_STREAMS")
        self._viewing: set[asyncio.Task[Any]] = set()
        self._ending = False
        self._large = LargeResponseLimiter()
        self._open = dict(open_handlers or {})
        self._handlers = {f"/{SERVICE}/{row.grpc_name}": self._handler(row) for row in METHODS} | dict(
            more_handlers or {}
        )
        self._no_key = refusing(UnauthenticatedError(WRONG_KEY))

    def __repr__(self) -> str:
        return f"GrpcHandlers({len(self._handlers)} methods, {self._calls}, {self._viewers})"

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of a call, which may be one that refuses it."""
        path = handler_call_details.method
        found = self._open.get(path)
        if found is not None:
            return found
        if not self._key_ok(_key_headers(handler_call_details.invocation_metadata)):
            return self._no_key
        self._service.called()
        found = self._handlers.get(path)
        return found if found is not None else refusing(UnsupportedError(f"no such method: {path}"))

    def _handler(self, row: Method) -> grpc.RpcMethodHandler[Any, Any]:
        if row.streaming:
            return grpc.stream_stream_rpc_method_handler(self._logs)
        if row.client_streaming:
            respond = self._from_stream(getattr(self._service, row.stream_handler))
        else:
            respond = self._from_message(row, getattr(self._service, row.handler))
        room = None if row.grpc_name in PROBES else self._calls

        async def answer(_messages: Any, context: Context) -> bytes:
            try:
                if room is None:
                    return await respond(context)
                with room:
                    return await respond(context)
            except NodeError as error:
                await refuse(context, error)
            except (aio.AbortError, asyncio.CancelledError):
                raise
            except Exception as error:
                log.error("call failed", method=row.grpc_name, exc_info=error)
                await refuse(context, InternalError.of(error))
            raise AssertionError("refusing ends the call")

        if row.booked:
            # One message and a status, which is the same on the wire.
            return grpc.stream_stream_rpc_method_handler(answer)
        return grpc.stream_unary_rpc_method_handler(answer)

    def _from_message(self, row: Method, handle: Callable[[bytes], BookedAnswer]) -> Respond:
        name = row.request.DESCRIPTOR.name

        async def respond(context: Context) -> bytes:
            answer = handle(await self._message(context, name))
            found = answer if isinstance(answer, bytes) else await answer
            if row.booked:
                async with self._large.place(found.body if isinstance(found, TrackedResponse) else found):
                    await _deliver(found, context)
                return b""
            assert not isinstance(found, TrackedResponse)
            return found

        return respond

    def _from_stream(self, handle: Callable[[AsyncIterator[bytes]], Awaitable[bytes]]) -> Respond:
        async def respond(context: Context) -> bytes:
            _note_deadline(context)
            return await handle(self._messages(context))

        return respond

    async def _message(self, context: Context, name: str) -> bytes:
        """The one message of a call."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                message = await context.read()
        except TimeoutError:
            raise self._silent() from None
        _note_deadline(context)
        if not isinstance(message, bytes):
            raise InvalidRequestError(f"no message: send one {name}, an empty one for its defaults")
        return message

    async def _messages(self, context: Context) -> AsyncIterator[bytes]:
        """All messages of a stream."""
        ends_at = time.monotonic() + STREAM_SECONDS
        while True:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    message = await context.read()
            except TimeoutError:
                raise self._silent() from None
            if not isinstance(message, bytes):
                return
            if time.monotonic() > ends_at:
                raise DeadlineExceededError(f"the stream has lasted {STREAM_SECONDS:g} s, which is all it may")
            yield message

    def _silent(self) -> NodeError:
        return DeadlineExceededError(f"no message came within {self._timeout_seconds:g} s, and no end of the stream")

    async def _logs(self, _messages: Any, context: Context) -> None:
        """The log for as long as the caller stays. No heartbeats: the panel would show them as empty lines.

        Callers that have gone without a word are found by the connection's own pings.
        """
        try:
            await self._message(context, "Empty")
            with self._viewers:
                await context.send_initial_metadata(())
                async with self._service.logs() as entries:
                    await self._pass_on(entries, context)
        except NodeError as error:
            await refuse(context, error)
        except (aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.error("call failed", method="GetLogs", exc_info=error)
            await refuse(context, InternalError.of(error))

    async def _pass_on(self, entries: AsyncIterator[LogEntry], context: Context) -> None:
        """Send what is logged. Waits for this caller alone: the entries queue up, and are dropped, for each by itself."""
        viewer = asyncio.current_task()
        assert viewer is not None
        self._viewing.add(viewer)
        try:
            async for entry in entries:
                if entry is not None:
                    await context.write(pb.Log(detail=entry[1].decode(errors="replace")).SerializeToString())
        except asyncio.CancelledError:
            if not self._ending:
                raise
            viewer.uncancel()
            raise UnavailableError("this worker is ending: open the log once more") from None
        finally:
            self._viewing.discard(viewer)

    def end_viewers(self) -> None:
        """Tell everybody who reads the log that this worker ends."""
        self._ending = True
        for viewer in self._viewing:
            viewer.cancel()


async def _deliver(answer: bytes | TrackedResponse, context: Context) -> None:
    """Write an answer of which somebody wants to know whether it arrived.

    It has when it was written and the call ended without the caller having gone. grpc swallows what it learns of that behind
    a handler that returns its answer: here a failed write is seen, and the call's task knows whether it was cancelled.
    """
    if not isinstance(answer, TrackedResponse):
        await context.write(answer)
        return
    call = asyncio.current_task()
    assert call is not None
    written = False

    def ended(task: asyncio.Task[object]) -> None:
        answer.settle(written and not task.cancelled() and not task.cancelling() and task.exception() is None)

    call.add_done_callback(ended)
    try:
        await context.write(answer.body)
        written = True
    except aio.InternalError as error:
        log.debug("an answer was not taken", error=repr(error))


def _note_deadline(context: Context) -> None:
    left = context.time_remaining()
    if left is not None:
        budget.caller_waits(left)


def _key_headers(metadata: Any) -> dict[bytes, bytes]:
    """What the key may be in, as :class:`KeyCheck` takes it."""
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode(errors="replace")
        for name, value in metadata or ()
        if name in ("x-api-key", "authorization")
    }
