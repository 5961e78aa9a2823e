"""Answers that are sent without the application, for methods that are called for one user after the other.

Falcon would cost more than all the rest of such a call. The answers are, to the byte, those of the application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from pgnode.api.rest.asgi import Headers, Send
from pgnode.api.rest.delivery import TrackedRoute
from pgnode.api.rest.errors import FormChoice, answerable, whole_error
from pgnode.api.rest.negotiation import PROTOBUF
from pgnode.api.rest.response_chunks import ResponseChunks
from pgnode.bus.indexed import Body
from pgnode.metrics.meter import OK, Line

#: An HTTP method, and a path without a slash at its end.
RouteKey = tuple[str, str]

#: The handler of a method, which is awaited by the pipeline itself.
DirectHandler = Callable[[bytes], Awaitable[bytes]]

_CONTENT_TYPE = (b"content-type", PROTOBUF.encode())

#: The headers of an empty answer.
_EMPTY_HEADERS: Headers = [(b"content-length", b"0"), _CONTENT_TYPE]


class WholeAnswer(NamedTuple):
    """An answer of which everything is known before its first byte is sent."""

    status: int
    headers: Headers
    body: Body


class CachedAnswer(NamedTuple):
    """The answers of a method as far as they are at hand; the application knows all others."""

    #: Takes a body, returns the protobuf answer to it, or None where it is not at hand.
    look_up: Callable[[bytes], Body | None]
    #: Seconds for the header ``Age``; None for a method whose answers have no age.
    age: Callable[[], float | None] | None

    def find(self, body: bytes) -> Body | None:
        """Return the answer to ``body`` where it is at hand, else None, also where looking it up fails."""
        try:
            return self.look_up(body)
        except Exception:  # the application meets the same error, answers it and logs it
            return None

    def headers(self, answer: Body) -> Headers:
        """Return the headers that Falcon would send with ``answer``."""
        headers = [(b"content-length", b"%d" % len(answer)), _CONTENT_TYPE]
        if self.age is not None and (age := self.age()) is not None:
            headers.append((b"age", b"%d" % age))
        return headers


class RoutePolicy(NamedTuple):
    """What the pipeline does with the requests of one route."""

    cached: CachedAnswer | None
    direct: DirectHandler | None
    tracked: TrackedRoute | None
    takes_body: bool
    #: Without Content-Length and coding it is not known whether a body follows.
    needs_length: bool
    #: Counts its calls.
    line: Line
    #: Counts those whose answer is on loan.
    taken_line: Line
    #: What the audit trail says of its calls: name and group of the method; None where it says nothing.
    audited: tuple[str, str] | None = None


def protobuf_headers(answer: bytes) -> Headers:
    """Return the headers of a protobuf ``answer``; they are not to be changed."""
    return _EMPTY_HEADERS if not answer else [(b"content-length", b"%d" % len(answer)), _CONTENT_TYPE]


async def send_chunks(send: Send, answer: Body) -> None:
    """Send a body in chunks, each when there is room for it, but for the end of the answer."""
    async for chunk in ResponseChunks(answer):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def answer_directly(
    direct: DirectHandler, body: bytes, headers: Mapping[bytes, bytes], route: RouteKey, error_form: FormChoice
) -> tuple[WholeAnswer, str]:
    """Have a handler answer a request.

    Args:
        direct: The handler.
        body: The request's whole body.
        headers: Its headers, names in lower case.
        route: Its method and path.
        error_form: Chooses the form of an error.

    Returns:
        The answer, which may be an error, and its code: OK, or that of the error.
    """
    try:
        answer = await direct(body)
    except Exception as failed:
        error = answerable(failed, {"method": route[0], "path": route[1]})
        return WholeAnswer(error.status, *whole_error(error, error_form(headers, True))), error.code
    return WholeAnswer(200, protobuf_headers(answer), answer), OK


async def send_whole(send: Send, answer: WholeAnswer) -> None:
    """Send an answer as an ASGI application does."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})
