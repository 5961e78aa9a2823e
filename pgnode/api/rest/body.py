"""The whole body of a request, or an error: a body that was cut short can be a valid message that says something else.

Half of a ``Users`` would remove the other half. So length and coding are checked first, and a handler gets the body only
when all of it is there.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, NamedTuple

from pgnode.api.rest.asgi import Event, Headers, Receive
from pgnode.errors import InvalidRequestError, LengthRequiredError, TooLargeError

#: Seconds for which the rest of a refused body is read and thrown away. A connection that is closed with unread bytes in it
#: is reset, and a reset may overtake the answer (RFC 9112, section 9.6).
DRAIN_SECONDS = 1.0

#: Longest Content-Length that is read as a number.
_LENGTH_DIGITS_MAX = 18

_NO_BODY: Event = {"type": "http.request", "body": b"", "more_body": False}


async def receive_nothing() -> Event:
    """Say that the body is over: an application that reads it itself finds none."""
    return _NO_BODY


def check_framing(length: bytes | None, coding: bytes | None, headers: Headers) -> None:
    """Check how the end of a body is marked.

    Args:
        length: The header Content-Length.
        coding: The header Transfer-Encoding.
        headers: All headers, as they came.

    Raises:
        LengthRequiredError: Nothing marks the end.
        InvalidRequestError: The headers contradict each other, or are not understood.
    """
    if length is None and coding is None:
        raise LengthRequiredError("no Content-Length and no chunked coding: send a length, 0 for an empty message")
    if coding is not None:
        if length is not None:
            raise InvalidRequestError("both Content-Length and Transfer-Encoding are given: send one of them")
        if coding.strip().lower() != b"chunked":
            raise InvalidRequestError("unknown Transfer-Encoding: only chunked is supported")
    if sum(name in (b"content-length", b"transfer-encoding") for name, _ in headers) > 1:
        raise InvalidRequestError("more than one Content-Length or Transfer-Encoding: send one of them, once")


class PartialBody(NamedTuple):
    """A body of which not everything is there yet."""

    #: Its size in bytes by Content-Length; None where the coding is chunked.
    announced: int | None
    #: The first event, None where it has to be waited for.
    event: Event | None
    #: What to await for the first event.
    waiting: Awaitable[Event]
    receive: Receive


class BodyReader:
    """Reads bodies within limits of size and time.

    Args:
        max_bytes: Size of the largest body.
        timeout_seconds: Time for the whole of a body, not for each part of it.
        size_setting: The setting that raises ``max_bytes``, for the text of the error; None where there is none.
    """

    def __init__(self, *, max_bytes: int, timeout_seconds: float, size_setting: str | None) -> None:
        self.max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._hint = f": raise {size_setting}" if size_setting is not None else ""

    def __repr__(self) -> str:
        return f"BodyReader({self.max_bytes} bytes, {self._timeout_seconds:g} s)"

    def read_now(self, length: bytes | None, receive: Receive) -> bytes | PartialBody:
        """Return the body where all of it is there already, as it nearly always is: no timer is set up for it.

        Args:
            length: The header Content-Length; None where the coding is chunked.
            receive: The server's ``receive``.

        Returns:
            The body, or what :meth:`read_rest` needs to wait for it.

        Raises:
            InvalidRequestError: Content-Length is not a number.
            TooLargeError: It is above the limit.
        """
        announced: int | None = None
        if length is not None:
            if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
                raise InvalidRequestError("Content-Length is not a number")
            announced = int(length)
            if announced == 0:
                return b""
            if announced > self.max_bytes:
                raise self._too_large(f"{announced} bytes")
        event, waiting = None, receive()
        # The type itself: asking the abstract class takes ten times as long.
        if type(waiting) is types.CoroutineType:
            # The first event where it is there already.
            try:
                pending = waiting.send(None)
            except StopIteration as done:
                event = done.value
            else:
                waiting = _resumed(waiting, pending)
        if event is not None and not event.get("more_body", False):
            body: bytes = event.get("body", b"")
            if len(body) == announced:
                return body
        return PartialBody(announced, event, waiting, receive)

    async def read_rest(self, partial: PartialBody) -> bytes:
        """Wait for the whole of a body.

        Args:
            partial: What :meth:`read_now` returned.

        Returns:
            The body.

        Raises:
            InvalidRequestError: The caller went away, took too long, or sent another size than announced.
            TooLargeError: The body is above the limit.
        """
        announced, event, waiting, receive = partial
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    if event is None:
                        event = await waiting
                    if event["type"] != "http.request":
                        of_all = "" if announced is None else f" of {announced}"
                        raise InvalidRequestError(f"the body was cut short after {size} bytes{of_all}")
                    part = event.get("body", b"")
                    if part:
                        parts.append(part)
                        size += len(part)
                        if size > self.max_bytes:
                            raise self._too_large(f"more than {self.max_bytes} bytes")
                    if not event.get("more_body", False):
                        break
                    event, waiting = None, receive()
        except TimeoutError:
            raise InvalidRequestError(f"the body did not arrive within {self._timeout_seconds:g} s") from None
        if announced is not None and size != announced:
            raise InvalidRequestError(f"the body has {size} bytes, Content-Length says {announced}")
        return b"".join(parts)

    def _too_large(self, what: str) -> TooLargeError:
        return TooLargeError(f"the body has {what}, at most {self.max_bytes} are allowed{self._hint}")


@types.coroutine
def _resumed(coroutine: Coroutine[Any, Any, Event], pending: Any) -> Generator[Any, Any, Event]:
    """Go on awaiting a coroutine that was stepped once and waits for ``pending``."""
    while True:
        try:
            sent = yield pending
        except BaseException as error:  # cancellations and errors are the coroutine's to see
            step = functools.partial(coroutine.throw, error)
        else:
            step = functools.partial(coroutine.send, sent)
        try:
            pending = step()
        except StopIteration as done:
            event: Event = done.value
            return event


async def drain(receive: Receive, seconds: float) -> None:
    """Throw away what still arrives of a body, for a moment: see :data:`DRAIN_SECONDS`."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                event = await receive()
                if event["type"] != "http.request" or not event.get("more_body", False):
                    return
    except TimeoutError:
        pass
