"""Gunicorn's ``asgi`` worker with what it lacks: time limits for headers and for callers that take nothing, patience with quick
callers, JSON for its own errors.

Gunicorn limits idle keep-alive connections, but waits for ever for the headers of a first request, and for room to write; it
answers a request that it cannot parse with a page of HTML; it drops a large request that comes before it has put the one before
it away; and when it ends it waits for connections on which nothing goes on.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi
from gunicorn_h1c import H1CProtocol

from pgnode.api.rest.delivery import DELIVERIES
from pgnode.api.rest.log_stream import UNHURRIED
from pgnode.worker.delivery import TcpDelivery

#: Seconds until a request's headers must be complete; set from the settings before the first connection.
HEADER_TIMEOUT_SECONDS = 15.0

#: Seconds in which a caller has to take something of what waits for it. One that takes nothing holds an answer in memory.
STALL_SECONDS = 120.0

#: A worker that ends has accepted connections that it does not know yet: their TLS handshakes are under way. So much longer it
#: goes on, and whoever has just come is answered.
HANDSHAKE_SECONDS = 0.2

_CODES = {400: "INVALID_ARGUMENT", 414: "INVALID_ARGUMENT", 431: "INVALID_ARGUMENT", 501: "UNIMPLEMENTED"}


#: Bytes given to the parser at once: less than the 64 KiB that it keeps of what follows a complete request.
FEED_BYTES = 32 * 1024


class PatientParser(H1CProtocol):  # type: ignore[misc]
    """The parser, with room for a request that comes while the one before it is not put away yet.

    An answer is on its way some turns of the event loop before Gunicorn resets the parser. A caller that sends its next
    request right then finds the parser complete, which keeps 64 KiB of it; Gunicorn closes the connection of a caller
    whose request was longer, without an answer (gunicorn_h1c 0.6.10, ``remaining_truncated``).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tail = b""

    def feed(self, data: bytes) -> None:
        if len(data) <= FEED_BYTES and not self.is_complete:
            super().feed(data)
            return
        for at in range(0, len(data), FEED_BYTES):
            if self.is_complete:
                self._tail += data[at:]
                return
            super().feed(data[at : at + FEED_BYTES])

    @property
    def waiting_bytes(self) -> int:
        """What waits for :meth:`reset`, apart from the parser's own part."""
        return len(self._tail)

    def remaining(self) -> bytes:
        kept: bytes = super().remaining()
        return kept + self._tail if self._tail else kept

    def reset(self) -> None:
        self._tail = b""
        super().reset()


class NodeProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection."""

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._header_timer: asyncio.TimerHandle | None = None
        self._was_asked = False
        #: Set while the connection has no room for more.
        self._stall_timer: asyncio.TimerHandle | None = None
        #: The scope of the last request.
        self._scope: dict[str, Any] = {}

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.worker.connections.add(self)
        self._arm_header_timer()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is under way on it, or its first one is still to come."""
        if self._was_asked and self._awaiting_request and not self._finishing_calls:
            self._headers_too_late()

    def _feed_callback_parser(self, data: bytes) -> Any:
        goes_on = super()._feed_callback_parser(data)
        # The first bytes of a further request, as they come or from the same packet as the one before: the rest of its
        # headers has to come in time, too. Nearly always they are complete by now, and no timer is needed.
        if goes_on and self._header_timer is None and not self._request_ready.is_set():
            self._arm_header_timer()
        return goes_on

    def _http1_buffered(self) -> int:
        # Counted so that Gunicorn stops reading from a connection of which too much waits.
        held: int = super()._http1_buffered()
        parser = self._callback_parser
        return held + parser.waiting_bytes if isinstance(parser, PatientParser) else held

    def _on_headers_complete(self) -> Any:
        self._was_asked = True
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        return super()._on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        super().connection_lost(exc)
        # Whoever waits for room to write need not wait for the grace period: what is written from here on is thrown away.
        self.resume_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.worker.loop.call_later(STALL_SECONDS, self._stalled)

    def resume_writing(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def _stalled(self) -> None:
        self._stall_timer = None
        if UNHURRIED not in self._scope:
            self.transport.abort()

    def _arm_header_timer(self) -> None:
        self._header_timer = self.worker.loop.call_later(HEADER_TIMEOUT_SECONDS, self._headers_too_late)

    def _headers_too_late(self) -> None:
        self._header_timer = None
        self._close_transport()
        if self._request_ready is not None:
            # The connection's task waits for this and then sees that the connection is closed.
            self._request_ready.set()

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> Any:
        scope = super()._build_http_scope(request, sockname, peername)
        scope[DELIVERIES] = self._deliver
        self._scope = scope
        return scope

    def _deliver(self) -> TcpDelivery:
        """Watch the answer that is about to be written."""
        return TcpDelivery(self.transport)

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        code = _CODES.get(status, "INTERNAL")
        body = json.dumps({"error": f"malformed request: {message}", "code": code}).encode()
        head = [
            f"HTTP/1.1 {status} {self._get_reason_phrase(status)}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            *(f"{name}: {value}" for name, value in extra_headers),
        ]
        self._safe_write("\r\n".join(head).encode() + b"\r\n\r\n" + body)


class NodeWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """The worker class that the node's Gunicorn configuration names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[NodeProtocol] = set()
        self._main: asyncio.Task[None] | None = None

    async def _serve(self) -> None:
        self._main = asyncio.current_task()
        await super()._serve()

    def handle_exit_signal(self) -> None:
        serves = self.alive and bool(self.servers)
        super().handle_exit_signal()
        if serves and self._main is not None:
            # Its main loop looks once a second whether it is to end; what it does then is the same.
            self._main.cancel()

    async def _shutdown(self) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(HANDSHAKE_SECONDS)
        for connection in list(self.connections):
            connection.close_if_idle()
        await super()._shutdown()

    def init_process(self) -> None:
        # Looked up through the subclass, its findings would be kept where the base class does not look for them.
        ASGIProtocol._check_h1c_protocol_available()
        ASGIProtocol._h1c_protocol_class = PatientParser
        # Where the worker looks up the class of its connections.
        gasgi.ASGIProtocol = NodeProtocol
        super().init_process()
