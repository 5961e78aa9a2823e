"""Every method of the table as ``service.NodeService`` over gRPC, messages in and out as bytes.

The key is checked when a call is opened, before anything of it is read: a call is refused by a handler that never reads.
All methods are registered as streams from the caller, also those that take one message. That is the same on the wire, and
it leaves reading to :class:`~pgnode.api.grpc.messages.MessageReader`, which does not wait without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any, TypeAlias

import grpc
import structlog
from grpc import aio

from pgnode.api.auth import CURRENT, NO_KEY_YET, PREVIOUS, WRONG_KEY, ApiKeys
from pgnode.api.call_audit import CallAudit
from pgnode.api.grpc.backpressure import LargeResponseLimiter
from pgnode.api.grpc.conduct import Conduct, peer_of
from pgnode.api.grpc.delivery import deliver
from pgnode.api.grpc.errors import no_key_handler, refuse, refusing_handler
from pgnode.api.grpc.grpc_compat import Context, WriteError
from pgnode.api.grpc.limits import ConcurrencyLimit
from pgnode.api.grpc.log_viewers import LogViewers
from pgnode.api.grpc.messages import MessageReader
from pgnode.api.methods import METHODS, Method
from pgnode.api.service.node_service import NodeService
from pgnode.api.service.tracked import TrackedHandler, TrackedResponse
from pgnode.errors import InternalError, NodeError, UnauthenticatedError, UnavailableError, UnsupportedError
from pgnode.metrics.meter import CANCELLED, OK, FaceMeter
from pgnode.os_support.clock import Clock
from pgnode.wire.texts import path_shown

log = structlog.get_logger(__name__)

SERVICE = "service.NodeService"

#: Methods that no limit refuses: a panel takes a refused probe for a dead node.
PROBES = frozenset({"GetBaseInfo", "GetBackendStats"})

RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
#: Does the work of a call. What it returns is the answer; where it has written the answer itself, that is ignored. None: it
#: was on loan.
Respond = Callable[[Context], Awaitable[bytes | None]]


class GrpcHandlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Finds the handler of a call.

    Args:
        service: Answers the methods.
        api_key: The keys that callers may send, or one, a UUID; ValueError for anything else.
        body_timeout_seconds: Time for each message of a caller.
        max_calls: So many calls may run at once.
        max_streams: So many viewers of the log there may be.
        conduct: Takes note of callers without the key, and of those who take their calls back; made where none is given.
        extra_handlers: Further handlers by path.
        open_paths: Paths of those that answer without the key, too.
        meter: Counts the calls.
        audit: Takes note of those that change something.
    """

    def __init__(
        self,
        service: NodeService,
        *,
        api_key: str | ApiKeys,
        body_timeout_seconds: float,
        max_calls: int,
        max_streams: int,
        conduct: Conduct | None = None,
        extra_handlers: Mapping[str, RpcHandler] | None = None,
        open_paths: Collection[str] = (),
        meter: FaceMeter | None = None,
        audit: CallAudit | None = None,
    ) -> None:
        self._service = service
        self._meter = meter if meter is not None else FaceMeter(perf_counter)
        self._audit = audit
        self._keys = ApiKeys.of(api_key)
        self._messages = MessageReader(body_timeout_seconds)
        self._conduct = conduct or Conduct(Clock())
        self._calls = ConcurrencyLimit(max_calls, "calls", "GRPC_MAX_CALLS")
        self._viewers = LogViewers(ConcurrencyLimit(max_streams, "log viewers", "GRPC_MAX_STREAMS"))
        self._large_responses = LargeResponseLimiter()
        #: By the key that was brought: which one it was is counted.
        self._handlers = {
            key: {
                **{f"/{SERVICE}/{row.grpc_name}": self._handler(row, key) for row in METHODS},
                **(extra_handlers or {}),
            }
            for key in (CURRENT, PREVIOUS)
        }
        self._open_paths = frozenset(open_paths)
        self._no_key = no_key_handler(self._came_without_key)

    def __repr__(self) -> str:
        return f"GrpcHandlers({len(self._handlers[CURRENT])} methods, {self._calls}, {self._viewers})"

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler:
        """Return the handler of a call, which may be one that refuses it."""
        path = handler_call_details.method
        key = self._keys.find(_key_headers(handler_call_details.invocation_metadata))
        if not key:
            if path in self._open_paths:
                return self._handlers[CURRENT][path]
            return self._no_key if self._keys.is_known else refusing_handler(UnavailableError(NO_KEY_YET))
        self._service.called()
        if (refusal := self._keys.refusal) is not None:
            self._meter.end(self._meter.other, refusal.code, self._meter.begin(key))
            return refusing_handler(refusal)
        found = self._handlers[key].get(path)
        if found is not None:
            return found
        error = UnsupportedError(f"no such method: {path_shown(path)}")
        self._meter.end(self._meter.other, error.code, self._meter.begin(key))
        return refusing_handler(error)

    def end_viewers(self) -> None:
        """End the log of all viewers: this worker ends."""
        self._viewers.end()

    def _came_without_key(self, peer: str) -> None:
        self._meter.refused(limited=self._conduct.came_without_key(peer))

    def _handler(self, row: Method, key: str) -> RpcHandler:
        if row.streaming:
            return grpc.stream_stream_rpc_method_handler(self._guarded(row, key, self._respond_with_log))
        if row.client_streaming:
            respond = self._to_stream(getattr(self._service, row.stream_handler))
        elif row.tracked:
            respond = self._to_message_tracked(row, getattr(self._service, row.handler))
        else:
            respond = self._to_message(row, getattr(self._service, row.handler))
        answer = self._guarded(row, key, respond, nullcontext() if row.grpc_name in PROBES else self._calls)
        if row.tracked:
            # One message and a status, which is the same on the wire.
            return grpc.stream_stream_rpc_method_handler(answer)
        return grpc.stream_unary_rpc_method_handler(answer)

    def _to_message(self, row: Method, handle: Callable[[bytes], bytes | Awaitable[bytes]]) -> Respond:
        name = row.request.DESCRIPTOR.name

        async def respond(context: Context) -> bytes:
            answer = handle(await self._messages.read_one(context, name))
            return answer if isinstance(answer, bytes) else await answer

        return respond

    def _to_message_tracked(self, row: Method, handle: TrackedHandler) -> Respond:
        name = row.request.DESCRIPTOR.name

        async def respond(context: Context) -> bytes | None:
            answer = handle(await self._messages.read_one(context, name))
            found = answer if isinstance(answer, bytes | memoryview) else await answer
            taken = isinstance(found, TrackedResponse)
            async with self._large_responses.slot(found.body if isinstance(found, TrackedResponse) else found):
                await deliver(found, context)
            return None if taken else b""

        return respond

    def _to_stream(self, handle: Callable[[AsyncIterator[bytes]], Awaitable[bytes]]) -> Respond:
        async def respond(context: Context) -> bytes:
            return await handle(self._messages.read_all(context))

        return respond

    async def _respond_with_log(self, context: Context) -> bytes:
        await self._messages.read_one(context, "Empty")
        with self._viewers.limit:
            async with self._service.logs() as entries:
                # After the log was opened: the caller gets everything that is logged after its headers.
                await context.send_initial_metadata(())
                await self._viewers.pass_on(entries, context)
        return b""

    def _guarded(
        self, row: Method, key: str, respond: Respond, limit: AbstractContextManager[None] | None = None
    ) -> Callable[[Any, Context], Awaitable[bytes]]:
        """Return ``respond`` within a limit, counted, with every error made the call's status."""
        allowed: AbstractContextManager[None] = limit if limit is not None else nullcontext()
        meter, audit = self._meter, self._audit
        audited = audit is not None and audit.takes(row.group)
        own_line, taken_line = meter.line(row.name, row.group), meter.line(row.name, "take")

        async def answer(_messages: Any, context: Context) -> bytes:
            if not self._conduct.came_with_key(context.peer()):
                self._meter.refused()
                await refuse(context, UnauthenticatedError(WRONG_KEY))
            line, code, begun = own_line, CANCELLED, meter.begin(key)
            try:
                with allowed:
                    answered = await respond(context)
                code = OK
                if answered is None:
                    line = taken_line
                return answered or b""
            except NodeError as error:
                code = error.code
                await refuse(context, error)
            except aio.AbortError:
                raise
            except asyncio.CancelledError:
                self._conduct.took_back(context.peer())
                raise
            except WriteError:
                # The caller has gone: nobody is there to be told anything.
                return b""
            except Exception as error:
                log.error("call failed", method=row.grpc_name, exc_info=error)
                code = InternalError.code
                await refuse(context, InternalError.of(error))
            finally:
                meter.end(line, code, begun)
                if audit is not None and audited:
                    peer = peer_of(context.peer())
                    audit.ended(row.name, row.group, peer.host if peer is not None else "", key, code)

        return answer


def _key_headers(metadata: Any) -> dict[bytes, bytes]:
    """Return what the key may be in, as :class:`ApiKeys` takes it."""
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode(errors="replace")
        for name, value in metadata or ()
        if name in ("x-api-key", "authorization")
    }
