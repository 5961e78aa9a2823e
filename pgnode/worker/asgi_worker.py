"""A worker of the REST API: Gunicorn's ``asgi`` worker with time limits, and JSON for its own errors.

Gunicorn limits idle keep-alive connections, but waits for ever for the headers of a first request and for room to write;
and it answers a request that it cannot parse with plain text. What is needed of its insides stands in
:mod:`pgnode.worker.gunicorn_compat`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import structlog

from pgnode.api.callers import AllowedCallers
from pgnode.api.rest.asgi import Headers
from pgnode.api.rest.context import CONNECTION
from pgnode.api.rest.fast_path import WholeAnswer
from pgnode.api.rest.whole_answers import FindAnswer
from pgnode.worker.delivery import TcpDelivery
from pgnode.worker.gunicorn_compat import HttpConnection, HttpWorker
from pgnode.worker.open_connections import OpenConnections

log = structlog.get_logger(__name__)

#: What is told of a request that cannot be read, by status. The texts are not the server's own, by which it could be recognised.
_ERRORS = {
    400: ("INVALID_ARGUMENT", "malformed request: not valid HTTP/1.1"),
    414: ("INVALID_ARGUMENT", "malformed request: the request line is too long"),
    431: ("INVALID_ARGUMENT", "malformed request: the headers are too large"),
    501: ("UNIMPLEMENTED", "malformed request: unknown Transfer-Encoding, only chunked is supported"),
}


#: Seconds between two looks at the handshakes, and at the calls, that are under way when a worker ends.
LEAVING_POLL_SECONDS = 0.02

#: Seconds between two lines in the log about addresses with too many connections.
SAY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Time limits for callers; seconds."""

    #: Until a request's headers must be complete.
    headers_seconds: float = 15.0
    #: In which a caller has to take something of what waits for it. One that takes nothing holds an answer in memory.
    stall_seconds: float = 120.0
    #: For an answer whose delivery is watched, from its first byte on.
    delivery_seconds: float = 30.0
    #: A worker that ends has accepted connections whose TLS handshakes are still under way. It waits for them for so long at
    #: most, and answers what they ask.
    handshake_seconds: float = 2.0
    #: For those who have connected to a worker that ends, and have asked nothing yet. Calls have Gunicorn's ``graceful_timeout``.
    silent_seconds: float = 4.0


class NodeConnection(HttpConnection):
    """One connection of a caller, with its time limits."""

    def __init__(self, worker: NodeWorker) -> None:
        super().__init__(worker)
        self._limits = worker.limits
        self._header_timer: asyncio.TimerHandle | None = None
        #: Set while the caller takes nothing.
        self._stall_timer: asyncio.TimerHandle | None = None
        #: The answer to the last request has no end, as a log stream.
        self.is_endless = False
        #: Answers requests of which everything is there; None where the port has nothing that does.
        self._find_answer: FindAnswer | None = None
        #: The caller's address, "" where there is none.
        self._caller = ""
        #: It was noted that something was asked on it.
        self._was_noted = False

    def opened(self) -> None:
        """Wait for the headers of the first request; close the connection of somebody who may not connect."""
        peer = self.transport.get_extra_info("peername")
        if self.worker.callers.networks and isinstance(peer, tuple) and not self.worker.callers.admit(peer[0]):
            # The kernel let it through: where it takes no filter, or before it had one.
            self.worker.note_not_allowed()
            self.transport.abort()
        else:
            self._expect_headers()
            self._caller = str(peer[0]) if isinstance(peer, tuple) else ""
            here = self.transport.get_extra_info("sockname")
            whole_answers = getattr(self.app, "whole_answers", None)
            if whole_answers is not None and isinstance(here, tuple):
                self._find_answer = whole_answers(here[1])
            self.worker.connection_opened(self, self._caller)

    def caller_named(self, host: str) -> bool:
        """Count the connection as that of the caller whom the proxy in front has named, and tell whether it may call.

        Args:
            host: The caller's address.

        Returns:
            Whether it may.
        """
        if not self.worker.callers.admit(host):
            self.worker.note_not_allowed()
            return False
        self.worker.open_connections.closed(self)
        self._caller = host
        serves: bool = self.worker.connection_opened(self, host)
        return serves

    def request_begun(self) -> None:
        """Wait for the rest of a further request's headers."""
        if self._header_timer is None:
            self._expect_headers()

    def headers_read(self) -> None:
        """Stop waiting for headers."""
        self.is_endless = False
        if not self._was_noted:
            self._was_noted = True
            self.worker.open_connections.asked(self)
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def closed(self) -> None:
        """Forget all timers."""
        self.worker.open_connections.closed(self)
        self._stop_header_timer()
        self.flows()

    def stalled(self) -> None:
        """Give the caller its time to take something."""
        if self._stall_timer is None:
            self._stall_timer = self.worker.loop.call_later(self._limits.stall_seconds, self._takes_nothing)

    def flows(self) -> None:
        """Stop waiting for the caller to take something."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def scope_built(self, scope: dict[str, Any]) -> None:
        """Offer the application what it may need of this connection.

        Args:
            scope: The ASGI scope of a request.
        """
        scope[CONNECTION] = self

    def answer_whole(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> WholeAnswer | Awaitable[WholeAnswer] | None:
        """Answer a request without the application, where that is possible.

        Args:
            method: The HTTP method.
            path: The path.
            headers: All headers, names in lower case.
            body: The whole body.

        Returns:
            The answer, what to await for it, or None where the application has to be asked.
        """
        find = self._find_answer
        if find is None:
            return None
        return find(method, path, headers, self._caller, body)

    def watch_delivery(self) -> TcpDelivery:
        """Begin to watch the answer that is about to be written."""
        return TcpDelivery(self.transport, limit_seconds=self._limits.delivery_seconds)

    def close_after_answer(self) -> None:
        """Make the answer that is about to be written the connection's last one."""
        self.answer_is_last()

    def answer_is_endless(self) -> None:
        """Keep the connection although its caller takes nothing for a long time, but not for longer than the worker serves."""
        self.is_endless = True

    @property
    def has_call(self) -> bool:
        """Whether a request is under way on it that is going to be answered."""
        return self.was_asked and not self.is_idle

    def error_content(self, status: int, _message: str) -> tuple[str, bytes]:
        """Make the body of an answer to what is no request, in the form of all errors.

        Args:
            status: The HTTP status.
            _message: What is wrong with it, in the server's words.

        Returns:
            Content type and body.
        """
        code, text = _ERRORS.get(status, ("INTERNAL", "internal error: see the node's log"))
        return "application/json", json.dumps({"error": text, "code": code}).encode()

    def _expect_headers(self) -> None:
        self._header_timer = self.worker.loop.call_later(self._limits.headers_seconds, self._headers_too_late)

    def _headers_too_late(self) -> None:
        self._header_timer = None
        self.close()

    def _takes_nothing(self) -> None:
        self._stall_timer = None
        if not self.is_endless:
            self.transport.abort()


class NodeWorker(HttpWorker):
    """One worker process of the REST API."""

    connection_class = NodeConnection
    #: Time limits for callers.
    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    #: Who may connect.
    callers: ClassVar[AllowedCallers] = AllowedCallers(())
    #: How many connections one address of callers may have; 0: as many as it likes.
    most_per_address: ClassVar[int] = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Connections that were closed because their callers may not connect.
        self.not_allowed = 0
        self.open_connections: OpenConnections[NodeConnection] = OpenConnections(self.most_per_address)
        #: Connections that were ended since their address had too many.
        self.cut_off = 0
        self._said_at = -SAY_SECONDS

    def connection_opened(self, connection: NodeConnection, host: str) -> bool:
        """Count a connection, and end one where its address has too many.

        Args:
            connection: The connection.
            host: The address of its caller; "" where there is none.

        Returns:
            Whether it was another one that had to end, or none.
        """
        ends = self.open_connections.opened(connection, host)
        if ends is None:
            return True
        self.cut_off += 1
        self.open_connections.closed(ends)
        ends.transport.abort()
        if self.loop.time() - self._said_at >= SAY_SECONDS:
            self._said_at = self.loop.time()
            log.warning(
                "connections of one address ended: it has too many",
                caller=host,
                most=self.most_per_address,
                ended=self.cut_off,
                setting="MAX_CONNECTIONS_PER_ADDRESS",
            )
        return ends is not connection

    def note_not_allowed(self) -> None:
        """Count a connection that was closed because its caller may not connect."""
        self.not_allowed += 1

    def init_process(self) -> None:
        """Become the worker of this process."""
        _WORKERS[:] = [self]
        super().init_process()

    async def about_to_end(self) -> None:
        """Close idle connections and log streams, and wait for calls. Gunicorn would wait for all of them for the same time."""
        await self._all_have_arrived()
        for connection in list(self.connections):
            if connection.is_idle or connection.is_endless:
                connection.close()
        began = self.loop.time()
        await self._all_are_answered(self.cfg.graceful_timeout)
        # Gunicorn waits for the rest: whoever is left has asked nothing, or has had the time for a call.
        self.cfg.set("graceful_timeout", max(0, ceil(began + self.limits.silent_seconds - self.loop.time())))

    async def _all_have_arrived(self) -> None:
        """Wait for the handshakes that are under way: whoever was accepted here is answered by nobody else."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.handshake_seconds):
                while self.arriving:  # noqa: ASYNC110 - nobody tells of a handshake that fails
                    await asyncio.sleep(LEAVING_POLL_SECONDS)

    async def _all_are_answered(self, seconds: float) -> None:
        """Wait for the calls that are under way; a connection closes with its answer."""
        until = self.loop.time() + seconds
        while self.loop.time() < until and any(connection.has_call for connection in self.connections):
            # The master kills a worker that gives no sign of life.
            self.notify()
            await asyncio.sleep(LEAVING_POLL_SECONDS)


#: The worker of this process: one, after the fork.
_WORKERS: list[NodeWorker] = []


def open_connections() -> int:
    """Return how many connections of callers are open in this process."""
    return sum(len(worker.connections) for worker in _WORKERS)


def closed_as_not_allowed() -> int:
    """Return how many connections this process has closed because their callers may not connect."""
    return sum(worker.not_allowed for worker in _WORKERS)


def cut_off() -> int:
    """Return how many connections this process has ended for the conduct of their callers."""
    return sum(worker.cut_off for worker in _WORKERS)


def worker_with(
    limits: ConnectionLimits, callers: AllowedCallers | None = None, *, most_per_address: int = 0
) -> type[NodeWorker]:
    """Make the worker class for Gunicorn's configuration.

    Args:
        limits: Time limits for callers.
        callers: Who may connect; None: everybody.
        most_per_address: How many connections one address may have; 0: as many as it likes.

    Returns:
        A class of its own, since Gunicorn makes the workers.
    """
    members = {"limits": limits, "callers": callers or AllowedCallers(()), "most_per_address": most_per_address}
    return type("NodeWorker", (NodeWorker,), members)
