"""Everything that the node uses of Gunicorn beyond what it promises; nothing private of it is used elsewhere.

Two base classes translate Gunicorn's insides into hooks with names of this project: :class:`HttpConnection`, one connection
of a caller, and :class:`HttpWorker`, one worker process. :mod:`pgnode.worker.asgi_worker` fills the hooks in.

Gunicorn's ``asgi`` worker lacks three things that can be had only from the inside: a caller's next request may come before
the parser was reset (:class:`pgnode.worker.h1c_compat.RoomyParser`); its main loop checks only once a second whether it
should end; and it waits for idle connections. The tests of this module hold each private member to what is relied on here.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final
from weakref import WeakSet

from gunicorn import sock
from gunicorn.arbiter import Arbiter
from gunicorn.asgi import protocol
from gunicorn.asgi.parser import PythonProtocol
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gasgi

from pgnode import dependencies
from pgnode.os_support.connections import plain_host, unread_bytes

#: What Gunicorn logs with; :mod:`pgnode.worker.gunicorn_log` has another one.
GunicornLogger: Any = Logger

#: Status, headers and body of an answer.
Whole = tuple[int, list[tuple[bytes, bytes]], bytes | memoryview]

#: Gunicorn's settings; :mod:`pgnode.worker.gunicorn_settings` asks it about them.
GunicornConfig: Any = Config

#: Phrases that Gunicorn's table lacks. Its "Unknown" is what a server of Gunicorn's alone says.
_PHRASES: Final = {431: "Request Header Fields Too Large"}


def check() -> None:
    """Refuse versions of Gunicorn and its parser whose insides are not known.

    Raises:
        DependencyError: One of them has another version, or Gunicorn is missing.
    """
    dependencies.check("gunicorn", "gunicorn_h1c")


#: How Gunicorn's master makes a worker.
_SPAWN: Callable[[Any], Any] = Arbiter.spawn_worker


def keep_workers_in_want_of_room() -> None:
    """Have a master go on with the workers that it has where the system lets it make no other, and try again every second.

    By itself it ends, and all workers with it.
    """
    Arbiter.spawn_worker = sparing_the_others(_SPAWN)


def sparing_the_others(spawn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what makes a worker, or says once that this is not possible where others serve.

    Args:
        spawn: Makes a worker of a master; OSError where it cannot.

    Returns:
        The same for a master that has others.
    """
    told = False

    @wraps(spawn)
    def spawn_worker(arbiter: Any) -> Any:
        nonlocal told
        try:
            pid = spawn(arbiter)
        except OSError as error:
            # Nor is the new process a master, whatever fails in it.
            if not arbiter.WORKERS or os.getpid() != arbiter.pid:
                raise
            if not told:
                told = True
                arbiter.log.warning("no other worker can be started, those that there are go on: %s", error)
            return None
        told = False
        return pid

    return spawn_worker


class LineLimitParser(PythonProtocol):  # type: ignore[misc]
    """Gunicorn's own parser of HTTP requests, which refuses a line that is too long however it arrives.

    By itself it measures only a line whose end is not there yet (Gunicorn 27.0.1): the size of a chunk, and a trailer, might
    have any length where they came whole, so one request was taken or refused as its packets were cut.
    """

    __slots__ = ()

    def _find_line(self, limit: int, error: Exception) -> int:
        end: int = super()._find_line(limit, error)
        if end > limit:
            raise error
        return end


class HttpConnection(ASGIProtocol):  # type: ignore[misc]
    """One connection of a caller. Subclasses fill in the hooks; each is called within the event loop.

    ``transport`` is its transport, ``worker`` the :class:`HttpWorker` that it belongs to.
    """

    #: The head of an answer, made and not written yet.
    _response_buffer: bytes | None

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        worker.arriving.add(self)
        #: The headers of a request were read on it.
        self.was_asked = False
        #: The first bytes of a request are there, and the rest of its headers is not.
        self.request_incomplete = False
        #: Address and port of the caller that a proxy in front has named; None where none has.
        self.named_caller: tuple[str, int] | None = None
        #: The last request was fed by the connection's own task: it came with the one before.
        self._came_behind = False
        #: Nothing of Gunicorn's wants to know of each request: no access log, no hook of its configuration.
        self._may_answer_whole = (
            self._pre_request is None and self._post_request is None and not self.log.access_log_enabled
        )

    # What subclasses fill in

    def opened(self) -> None:
        """Take note, as a hook: the connection is there."""

    def request_begun(self) -> None:
        """Take note, as a hook: the first bytes of a further request are there, and the rest of its headers is not."""

    def caller_named(self, host: str) -> bool:
        """Take note, as a hook: a proxy has named the caller; comes once, before the headers of its first request are read.

        Args:
            host: The caller's address.

        Returns:
            Whether it may call; if not, the connection ends without an answer.
        """
        return True

    def headers_read(self) -> None:
        """Take note, as a hook: the headers of a request are complete."""

    def scope_built(self, scope: dict[str, Any]) -> None:
        """Take note, as a hook: the application is about to be called.

        Args:
            scope: The ASGI scope; may be added to.
        """

    def answer_whole(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Whole | Awaitable[Whole] | None:
        """Answer, as a hook, a request of which everything is there; return None where the application has to be asked."""
        return None

    def stalled(self) -> None:
        """Take note, as a hook: the caller takes less than is written, so writing waits."""

    def flows(self) -> None:
        """Take note, as a hook: the caller takes something again, or has gone; may come without :meth:`stalled`."""

    def closed(self) -> None:
        """Take note, as a hook: the connection is over."""

    def error_content(self, status: int, message: str) -> tuple[str, bytes]:
        """Make, as a hook that has to be filled in, content type and body of an answer to what is no request."""
        raise NotImplementedError

    # What subclasses use

    @property
    def is_idle(self) -> bool:
        """Whether it was used before and no request is under way on it, also none that was not read yet."""
        if not self.was_asked or self._finishing_calls:
            return False
        # Its task learns of a request only in the next turn of the event loop; until then it looks as if it waited for one.
        if not self._awaiting_request or self._request_ready.is_set() or self.request_incomplete:
            return False
        connection = self.transport.get_extra_info("socket")
        return connection is None or not unread_bytes(connection.fileno())

    def answer_is_last(self) -> None:
        """Make the answer that is about to be written the connection's last one."""
        # Here rather than by a question for every answer.
        self._will_close = closes_always

    def close(self) -> None:
        """Close it, and let Gunicorn's task for it know."""
        self._close_transport()
        if self._request_ready is not None:
            # The connection's task waits for this and then sees that the connection is closed.
            self._request_ready.set()

    # What Gunicorn calls

    def connection_made(self, transport: Any) -> None:
        """Take over a new connection, on this transport."""
        super().connection_made(transport)
        self.worker.arriving.discard(self)
        self.worker.connections.add(self)
        self.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection; ``exc`` says why it ended, and is None where one of the ends closed it."""
        self.worker.connections.discard(self)
        self.closed()
        super().connection_lost(exc)
        # Whoever waits for room to write need not wait for the grace period: what is written from here on is thrown away.
        self.resume_writing()

    def pause_writing(self) -> None:
        """Make writers wait: the transport's buffer is full."""
        super().pause_writing()
        self.stalled()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self.flows()
        super().resume_writing()

    def _feed_callback_parser(self, data: bytes) -> Any:
        self._came_behind = not self._awaiting_request
        try:
            goes_on = super()._feed_callback_parser(data)
        except ValueError:
            # Gunicorn's own parser, of a length with more digits than Python makes a number of.
            self._send_error_response(400, "a number that is too long")
            self._close_transport()
            return False
        # The first bytes of a further request come by themselves, or in the same packet as the one before: then Gunicorn
        # feeds them here once more. Nearly always the headers are complete by now.
        if goes_on and not self._request_ready.is_set():
            self.request_incomplete = True
            self.request_begun()
        return goes_on

    def _http1_buffered(self) -> int:
        # Counted so that Gunicorn stops reading from a connection of which too much waits.
        held: int = super()._http1_buffered()
        # Gunicorn's own parser keeps nothing apart.
        return held + len(getattr(self._callback_parser, "tail", b""))

    def _on_headers_complete(self) -> Any:
        if not self.was_asked and not self._take_named_caller():
            self.close()
            return False
        self.was_asked = True
        self.request_incomplete = False
        self.headers_read()
        return super()._on_headers_complete()

    def _take_named_caller(self) -> bool:
        """Look for what a proxy said before the first request, and tell whether that caller may call."""
        # Gunicorn's own parser has read it, where the proxy's address may say so (``proxy_allow_ips``); the fast one knows none.
        info = getattr(self._callback_parser, "proxy_protocol_info", None)
        if not info or info["client_addr"] is None:
            # Nothing was said, or the proxy speaks for itself, as its health checks do.
            return True
        self.named_caller = plain_host(info["client_addr"]), int(info["client_port"])
        return self.caller_named(self.named_caller[0])

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> Any:
        scope = super()._build_http_scope(request, sockname, peername)
        if self.named_caller is not None:
            scope["client"] = self.named_caller
        self.scope_built(scope)
        return scope

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> Any:
        # Gunicorn calls the application in a task of its own, since it may go on after its answer, and looks into each of its
        # messages. For an answer that is known as a whole, all of that was a quarter of what the request cost this process.
        receiver = self._body_receiver
        if self._may_answer_whole and receiver._complete:
            chunks = receiver._chunks
            body = b"" if not chunks else chunks[0] if len(chunks) == 1 else b"".join(chunks)
            found = self.answer_whole(request.method, request.path, request.headers_bytes, body)
            if found is not None:
                return await self._send_whole(request, found if isinstance(found, tuple) else await found)
        return await super()._serve_http_request(request, sockname, peername)

    async def _send_whole(self, request: Any, answer: Whole) -> bool:
        """Send an answer; return whether the connection may serve another request."""
        if self._closed:
            return False
        status, headers, body = answer
        closes = self._will_close(request, False)
        self._send_response_start(status, headers, request, close=closes)
        head = self._response_buffer or b""
        self._response_buffer = None
        self._safe_write(b"".join((head, body)) if body else head)
        if self._flow_control.write_paused:
            await self._flow_control.drain()
        elif self._came_behind:
            # Thousands of requests may have come in one go, and each may be answered without any wait: let others have a turn.
            await asyncio.sleep(0)
        return not closes

    def _is_websocket_upgrade(self, _request: Any) -> bool:
        # The node speaks HTTP alone, and an upgrade may be ignored (RFC 9110, section 7.8).
        return False

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        content_type, body = self.error_content(status, message)
        head = [
            f"HTTP/1.1 {status} {_PHRASES.get(status) or self._get_reason_phrase(status)}",
            f"content-type: {content_type}",
            f"content-length: {len(body)}",
            "connection: close",
            *(f"{name}: {value}" for name, value in extra_headers),
        ]
        self._safe_write("\r\n".join(head).encode() + b"\r\n\r\n" + body)


class HttpWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """One worker process. Subclasses name the class of its connections, and fill in the hook."""

    #: What a connection becomes.
    connection_class: type[HttpConnection]
    #: Seconds after which one that cannot use its certificate tries again.
    tls_again_seconds: float = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The connections that are open.
        self.connections: set[HttpConnection] = set()
        #: Accepted, and their TLS handshakes are under way. One whose handshake fails is told to nobody, and just goes.
        self.arriving: WeakSet[HttpConnection] = WeakSet()
        self._main: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None

    async def about_to_end(self) -> None:
        """Take note, as a hook: no connection is accepted any more, those that are open get their grace next."""

    def handle_exit_signal(self) -> None:
        """End in order, at once: by itself the main loop checks that only once a second."""
        serves = self.alive and bool(self.servers)
        super().handle_exit_signal()
        if serves and self._main is not None:
            # What it does when it is cancelled is the same as what it does when it finds that it is to end.
            self._main.cancel()

    def init_process(self) -> None:
        """Become a worker: set what Gunicorn makes of a connection, and run."""
        use_connection_class(self.connection_class)
        super().init_process()

    async def _serve(self) -> None:
        self._main = asyncio.current_task()
        while not await self._has_tls():
            if not self.alive:
                return
        await super()._serve()

    async def _has_tls(self) -> bool:
        """Make the TLS settings, or wait a moment; return whether they are there."""
        try:
            self._tls = make_tls(self.cfg)
        except Exception as error:  # whatever a file of the operator's may lead to
            self.log.error("not serving yet, trying again: the certificate cannot be used: %s", error)
            self.notify()
            await asyncio.sleep(self.tls_again_seconds)
            return False
        return True

    def _get_ssl_context(self) -> ssl.SSLContext | None:
        """Return what was made before, in place of Gunicorn, which serves without TLS where it cannot make it."""
        return self._tls

    async def _shutdown(self) -> None:
        for server in self.servers:
            server.close()
        await self.about_to_end()
        await super()._shutdown()


def make_tls(config: Any) -> ssl.SSLContext | None:
    """Make the TLS settings that a configuration of Gunicorn says, if any. Raises OSError: a file cannot be used."""
    return sock.ssl_context(config) if config.is_ssl else None


def closes_always(_request: Any, _response_requires_close: Any) -> bool:
    """Return, in Gunicorn's place, that the connection ends with this answer."""
    return True


def use_connection_class(connection_class: type[HttpConnection]) -> None:
    """Set what Gunicorn makes of a connection in this process, the parsers that connections use, and no header ``Server``."""
    # Looked up through the subclass, its findings would be kept where the base class does not look for them.
    if ASGIProtocol._check_h1c_protocol_available():
        from pgnode.worker.h1c_compat import RoomyParser  # noqa: PLC0415 - the parser may not be installed

        ASGIProtocol._h1c_protocol_class = RoomyParser
    # Gunicorn makes and compares its own parser by this name.
    protocol.PythonProtocol = LineLimitParser
    # Callers are not told what answers them.
    protocol._CACHED_SERVER_HEADER = b""
    # Where the worker looks up the class of its connections.
    gasgi.ASGIProtocol = connection_class
