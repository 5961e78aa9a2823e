"""Whether an answer reached its caller, as far as a server of HTTP can know it.

The server may put a :class:`Deliveries` into the scope (``scope[DELIVERIES]``): then an answer has arrived when the peer's kernel
has acknowledged its last byte. Where the server offers none, it has arrived when all of it was handed to the server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from pgnode.api.service.tracked import Settle

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Event, Receive, Send], Awaitable[None]]

#: Key of the scope under which a handler leaves whom to tell.
SETTLE = "pgnode.settle"
#: Key of the scope under which the server offers to watch an answer.
DELIVERIES = "pgnode.deliveries"

#: What HTTP/1.1 puts around a header.
_HEADER_BYTES = len(b": \r\n")


class Delivery(Protocol):
    """One answer on its way, watched from before its first byte."""

    async def arrived(self, answer_bytes: int) -> bool:
        """Wait until the answer, of at least so many bytes, has arrived or cannot any more; ends in time by itself."""

    def close(self, answer_bytes: int) -> bool:
        """Look once more, and stop watching. Returns what :meth:`arrived` would have."""


#: Begins to watch the connection of the request.
Deliveries = Callable[[], Delivery]


class _Written:
    """Without help of the server: written is delivered."""

    async def arrived(self, _answer_bytes: int) -> bool:
        return True

    def close(self, _answer_bytes: int) -> bool:
        return True


async def settle_after(app: App, scope: Event, receive: Receive, send: Send) -> None:
    """Run ``app``, and tell ``scope[SETTLE]``, if it left one there, whether its answer arrived."""
    watch: Delivery | None = None
    size, complete, refused = 0, False, False

    async def watched(event: Event) -> None:
        nonlocal watch, size, complete, refused
        if SETTLE not in scope:
            await send(event)
            return
        if watch is None:
            begin: Deliveries | None = scope.get(DELIVERIES)
            watch = _Written() if begin is None else begin()
        if event["type"] == "http.response.start":
            refused = event["status"] != 200
            size += sum(len(name) + len(value) + _HEADER_BYTES for name, value in event.get("headers", ()))
        size += len(event.get("body", b""))
        await send(event)
        complete = event["type"] == "http.response.body" and not event.get("more_body", False)

    arrived = False
    try:
        await app(scope, receive, watched)
        if complete and not refused and watch is not None:
            arrived = await watch.arrived(size)
    finally:
        settle: Settle | None = scope.pop(SETTLE, None)
        # A task that was cancelled meanwhile may have sent everything.
        seen = watch.close(size) if watch is not None else False
        if settle is not None:
            settle(arrived or (complete and not refused and seen))
