"""Answers that are tracked: whether one reached its caller, as far as a server of HTTP can know.

A server that offers a :class:`~pgnode.api.rest.context.ServerConnection` knows when the peer's kernel has acknowledged the last
byte. With any other, an answer has arrived when all of it was handed to the server.
"""

from __future__ import annotations

from collections.abc import Callable

from pgnode.api.rest.asgi import App, Event, Receive, Scope, Send
from pgnode.api.rest.context import Delivery, RequestContext, connection_of, context_of

#: What HTTP/1.1 puts around a header.
_HEADER_BYTES = len(b": \r\n")


class _Written:
    """The delivery of a server that knows nothing of it: what was written has arrived."""

    async def arrived(self, _answer_bytes: int) -> bool:
        return True

    def close(self, _answer_bytes: int) -> bool:
        return True


class TrackedRoute:
    """The application for requests whose answers may be tracked.

    A handler leaves in the request's context whom to tell; this tells it, once, whether the answer arrived.

    Args:
        app: Answers the requests.
        is_tracked: Whether the answer to a body will be tracked; of JSON that is not known before it is parsed.
    """

    def __init__(self, app: App, is_tracked: Callable[[bytes], bool]) -> None:
        self._app = app
        self.is_tracked = is_tracked

    def __repr__(self) -> str:
        return f"TrackedRoute({self._app!r})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, and tell what became of the answer."""
        context = context_of(scope)
        sender = _WatchedSender(scope, context, send)
        arrived = False
        try:
            await self._app(scope, receive, sender.send)
            arrived = await sender.arrived()
        finally:
            settle, context.settle = context.settle, None
            # A task that was cancelled meanwhile may have sent everything.
            arrived = sender.close() or arrived
            if settle is not None:
                settle(arrived)


class _WatchedSender:
    """Passes an answer on, and watches it from its first byte where somebody wants to know what becomes of it."""

    def __init__(self, scope: Scope, context: RequestContext, send: Send) -> None:
        self._scope = scope
        self._context = context
        self._send = send
        self._delivery: Delivery | None = None
        self._bytes = 0
        self._complete = False
        self._refused = False

    async def send(self, event: Event) -> None:
        if self._context.settle is None:
            await self._send(event)
            return
        if self._delivery is None:
            connection = connection_of(self._scope)
            self._delivery = _Written() if connection is None else connection.watch_delivery()
        if event["type"] == "http.response.start":
            self._refused = event["status"] != 200
            self._bytes += sum(len(name) + len(value) + _HEADER_BYTES for name, value in event.get("headers", ()))
        self._bytes += len(event.get("body", b""))
        await self._send(event)
        self._complete = event["type"] == "http.response.body" and not event.get("more_body", False)

    async def arrived(self) -> bool:
        """Wait until the answer has arrived, or cannot any more."""
        if self._delivery is None or not self._complete or self._refused:
            return False
        return await self._delivery.arrived(self._bytes)

    def close(self) -> bool:
        """Stop watching, and return whether the answer has arrived by now."""
        seen = self._delivery is not None and self._delivery.close(self._bytes)
        return seen and self._complete and not self._refused
