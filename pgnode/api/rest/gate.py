"""What every request passes before Falcon: the key, the body's form and size, and the wait for the whole of it.

Two methods are called for one user after the other, and Falcon would cost more than all the rest of them. Statistics that are at
hand, as they nearly always are, are sent from here (:class:`CachedAnswer`); the handler that changes a user is awaited here
(:data:`DirectHandler`). What goes wrong is the application's to answer, for these as for all others.

An ASGI callable for scopes of type ``http``. Behind it a handler either has the whole body or is not called: a body
cut short can be a valid message that says something else (half of a ``Users`` would remove the other half).

What it hands on, beside the scope as it came: ``scope[BODY]``, the body's bytes; ``scope[JSON_FORM]``, only where JSON is
sent or asked for; and ``scope[RECEIVE]``, the server's own ``receive``, by which a streaming answer learns that its
caller has gone. No answer waits for a body that will not
be read: such an answer says ``connection: close``, and what still arrives is thrown away for a moment so that the
caller gets to read it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping, MutableMapping
from hmac import compare_digest
from typing import Any, NamedTuple, Protocol

from pgnode.api.auth import WRONG_KEY, KeyCheck
from pgnode.api.rest.json_codec import JSON, JsonForm, prefers_json
from pgnode.api.rest.response_chunks import PIECE_BYTES, ResponseChunks
from pgnode.errors import InvalidRequestError, LengthRequiredError, NodeError, TooLargeError, UnauthenticatedError

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Keys of the scope that the gate adds.
BODY = "pgnode.body"
RECEIVE = "pgnode.receive"
#: A :class:`JsonForm`; missing where neither the body nor the answer is JSON.
JSON_FORM = "pgnode.json"
#: The exception of a handler that was awaited already: the application answers it.
FAILURE = "pgnode.failure"

CONTENT_TYPE = "application/x-protobuf"
_CONTENT_TYPE = CONTENT_TYPE.encode()
_JSON = JSON.encode()

#: Seconds for which the rest of a refused body is read and thrown away. A connection closed with unread bytes in it is
#: reset, and a reset may overtake the answer (RFC 9112, section 9.6).
LINGER_SECONDS = 1.0

_NO_BODY: Event = {"type": "http.request", "body": b"", "more_body": False}


async def _nothing_to_receive() -> Event:
    """Falcon's first ``receive``, which it waits for before anything else: the body is in the scope."""
    return _NO_BODY


class Route(Protocol):
    """What the gate has to know of a method."""

    @property
    def http_method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def takes_body(self) -> bool: ...


class Booking(NamedTuple):
    """Of a path whose answers may be booked."""

    #: Whether the answer to a body will be; of JSON that is not known before it is parsed.
    books: Callable[[bytes], bool]
    #: In place of the gate's application, for requests whose answers may be.
    app: App


#: The handler of a route that is called very often, awaited without the application, which makes the same of its answer.
DirectHandler = Callable[[bytes], Awaitable[bytes]]


class CachedAnswer(NamedTuple):
    """Of a route that is asked very often: how to have its answer without the application, which remains the one that
    knows every other answer, and makes the same of this one.
    """

    #: The protobuf answer to a body, None where it is the application's.
    answer: Callable[[bytes], bytes | None]
    #: Seconds for ``Age``, where answers have an age.
    age: Callable[[], float | None] | None


class RoutePolicy(NamedTuple):
    """What the gate knows of a route."""

    at_once: CachedAnswer | None
    direct: DirectHandler | None
    booking: Booking | None
    takes_body: bool
    #: Without any length it is not known whether a body follows.
    needs_length: bool


class Gate:
    """The ASGI callable. Serves one event loop; requests share nothing but its settings.

    ``body_timeout_seconds`` is for the whole body, not for each piece of it. With ``json_only`` no body may be protobuf.
    ``size_setting`` names the setting that raises ``max_body_bytes``, ``encode_error`` is the form of errors.
    ``booking`` names the paths whose answers may be booked, ``at_once`` the routes (method, path) with answers at hand, and
    ``direct`` those whose handlers are awaited here; what they raise is the application's to answer.
    """

    def __init__(
        self,
        app: App,
        methods: Iterable[Route],
        *,
        api_key: str,
        max_body_bytes: int,
        body_timeout_seconds: float,
        called: Callable[[], None] = lambda: None,
        json_only: bool = False,
        size_setting: str | None = "MAX_BODY_MIB",
        encode_error: Callable[[NodeError], bytes] | None = None,
        booking: Mapping[str, Booking] | None = None,
        at_once: Mapping[tuple[str, str], CachedAnswer] | None = None,
        direct: Mapping[tuple[str, str], DirectHandler] | None = None,
    ) -> None:
        self._app = app
        #: Told of every request that brought the key.
        self._called = called
        self._key_ok = KeyCheck(api_key)
        self._key = self._key_ok.canonical
        self._max_bytes = max_body_bytes
        self._timeout_seconds = body_timeout_seconds
        self._json_only = json_only
        self._size_hint = f": raise {size_setting}" if size_setting is not None else ""
        self._encode_error = encode_error or error_body
        self._routes: dict[tuple[str, str], RoutePolicy] = {}
        for row in methods:
            way = RoutePolicy(
                at_once=(at_once or {}).get((row.http_method, row.path)),
                direct=(direct or {}).get((row.http_method, row.path)),
                booking=(booking or {}).get(row.path),
                takes_body=row.takes_body,
                needs_length=row.takes_body and row.http_method in ("PUT", "POST"),
            )
            self._routes[row.http_method, row.path] = way
            self._routes[row.http_method, row.path + "/"] = way

    def __repr__(self) -> str:
        return f"Gate({len(self._routes)} routes, {self._max_bytes} bytes at most)"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        length = headers.get(b"content-length")
        coding = headers.get(b"transfer-encoding")
        has_body = coding is not None or (length is not None and length != b"0")
        key = headers.get(b"x-api-key")
        if (key is None or not compare_digest(key, self._key)) and not self._key_ok(headers):
            await self._refuse(UnauthenticatedError(WRONG_KEY), has_body, receive, send)
            return
        self._called()
        way = self._routes.get((scope["method"], scope["path"]))
        if way is None:  # Falcon says 404 or 405
            if has_body:
                await self._app(scope, _nothing_to_receive, _closing(send))
                await _linger(receive)
            else:
                await self._app(scope, _nothing_to_receive, send)
            return
        body = b""
        json_body = False
        if has_body or way.needs_length:
            try:
                repeated = len(headers) != len(scope["headers"])
                if length is None or coding is not None or repeated:
                    _check_framing(length, coding, repeated=repeated, scope=scope)
                content_type = headers.get(b"content-type")
                if way.takes_body and (content_type != _CONTENT_TYPE or self._json_only):
                    json_body = _is_json(content_type, self._json_only)
                announced = None if length is None else self._announced(length)
                if announced != 0:
                    # Nearly always the whole body is there already: no timer is set up for it.
                    event, waiting = _step(receive)
                    if (
                        event is not None
                        and not event.get("more_body", False)
                        and len(event.get("body", b"")) == announced
                    ):
                        body = event["body"]
                    else:
                        body = await self._read(announced, event, waiting, receive)
            except NodeError as error:
                await self._refuse(error, has_body, receive, send)
                return
        accept = headers.get(b"accept")
        json_answer = accept is not None and accept != b"*/*" and prefers_json(accept)
        is_json = json_body or json_answer
        if is_json:
            scope[JSON_FORM] = JsonForm(json_body, json_answer)
        elif way.at_once is not None and (answer := _at_hand(way.at_once, body)) is not None:
            await send({"type": "http.response.start", "status": 200, "headers": _headers(way.at_once, answer)})
            if len(answer) > PIECE_BYTES:
                async for piece in ResponseChunks(answer):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                answer = b""
            await send({"type": "http.response.body", "body": answer})
            return
        elif way.direct is not None:
            try:
                answer = await way.direct(body)
            except Exception as error:
                scope[FAILURE] = error
            else:
                headers_of_answer = [(b"content-length", b"%d" % len(answer)), (b"content-type", _CONTENT_TYPE)]
                await send({"type": "http.response.start", "status": 200, "headers": headers_of_answer})
                await send({"type": "http.response.body", "body": answer})
                return
        scope[BODY] = body
        scope[RECEIVE] = receive
        if way.booking is not None and (is_json or way.booking.books(body)):
            await way.booking.app(scope, _nothing_to_receive, send)
        else:
            await self._app(scope, _nothing_to_receive, send)

    def _announced(self, length: bytes) -> int:
        """What Content-Length says. Raises InvalidRequestError and TooLargeError."""
        if not length.isdigit() or len(length) > 18:
            raise InvalidRequestError("Content-Length is not a number")
        announced = int(length)
        if announced > self._max_bytes:
            raise self._too_large(f"{announced} bytes")
        return announced

    async def _read(
        self, announced: int | None, event: Event | None, waiting: Awaitable[Event], receive: Receive
    ) -> bytes:
        """The whole body, of ``announced`` bytes, or of any number where the coding is chunked.

        ``event`` is the first event, or ``waiting`` what to await for it. Raises TooLargeError and InvalidRequestError.
        """
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    if event is None:
                        event = await waiting
                    if event["type"] != "http.request":
                        raise InvalidRequestError(
                            f"the body was cut short after {size} bytes"
                            + ("" if announced is None else f" of {announced}")
                        )
                    part = event.get("body", b"")
                    if part:
                        parts.append(part)
                        size += len(part)
                        if size > self._max_bytes:
                            raise self._too_large(f"more than {self._max_bytes} bytes")
                    if not event.get("more_body", False):
                        break
                    event, waiting = None, receive()
        except TimeoutError:
            raise InvalidRequestError(f"the body did not arrive within {self._timeout_seconds:g} s") from None
        if announced is not None and size != announced:
            raise InvalidRequestError(f"the body has {size} bytes, Content-Length says {announced}")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _refuse(self, error: NodeError, has_body: bool, receive: Receive, send: Send) -> None:
        """Answer ``error`` in place of the application; a body that was not read ends the connection."""
        body = self._encode_error(error)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if error.status == UnauthenticatedError.status:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.retry_after_seconds is not None:
            headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
        if has_body:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        if has_body:
            await _linger(receive)

    def _too_large(self, what: str) -> TooLargeError:
        return TooLargeError(f"the body has {what}, allowed are {self._max_bytes}{self._size_hint}")


def _at_hand(at_once: CachedAnswer, body: bytes) -> bytes | None:
    try:
        return at_once.answer(body)
    except Exception:  # the application meets it, too, and answers and logs it as it does all others
        return None


def _headers(at_once: CachedAnswer, answer: bytes) -> list[tuple[bytes, bytes]]:
    """Those that Falcon would send."""
    headers = [(b"content-length", b"%d" % len(answer)), (b"content-type", _CONTENT_TYPE)]
    if at_once.age is not None and (age := at_once.age()) is not None:
        headers.append((b"age", b"%d" % age))
    return headers


def _step(receive: Receive) -> tuple[Event | None, Awaitable[Event]]:
    """The next event if it is there already; else None, and what to await for it."""
    receiving = receive()
    # The type itself: the abstract class takes ten times as long to ask.
    if type(receiving) is not types.CoroutineType:
        return None, receiving
    try:
        pending = receiving.send(None)
    except StopIteration as done:
        return done.value, receiving
    return None, _resumed(receiving, pending)


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


def error_body(error: NodeError) -> bytes:
    """The JSON form of ``error``."""
    return json.dumps({"error": error.text, "code": error.code}, ensure_ascii=False).encode(errors="replace")


def _check_framing(length: bytes | None, coding: bytes | None, *, repeated: bool, scope: Scope) -> None:
    """Raise LengthRequiredError without any length and InvalidRequestError for a contradictory one.

    ``repeated``: some header of ``scope`` is there more than once.
    """
    if length is None and coding is None:
        raise LengthRequiredError("no Content-Length and no chunked coding: send a length, 0 for an empty message")
    if coding is not None:
        if length is not None:
            raise InvalidRequestError("both Content-Length and Transfer-Encoding are given: send one of them")
        if coding.strip().lower() != b"chunked":
            raise InvalidRequestError("unknown Transfer-Encoding: only chunked is understood")
    if repeated and sum(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]) > 1:
        raise InvalidRequestError("more than one Content-Length or Transfer-Encoding: send one of them, once")


def _is_json(content_type: bytes | None, json_only: bool) -> bool:
    """Whether the body is JSON, not protobuf; no type at all means protobuf, and parameters do not matter.

    Raises InvalidRequestError for any other type, and with ``json_only`` for protobuf.
    """
    if content_type is None:
        return json_only
    kind = content_type.partition(b";")[0].strip().lower()
    if kind not in ((_JSON, b"") if json_only else (_CONTENT_TYPE, _JSON, b"")):
        allowed = JSON if json_only else f"{CONTENT_TYPE} or {JSON}"
        raise InvalidRequestError(f"wrong Content-Type {content_type.decode('latin-1')!r}: send {allowed}")
    return json_only or kind == _JSON


def _closing(send: Send) -> Send:
    """``send`` for an answer that ends its connection."""

    async def closing(event: Event) -> None:
        if event["type"] == "http.response.start":
            event["headers"] = [*event.get("headers", ()), (b"connection", b"close")]
        await send(event)

    return closing


async def _linger(receive: Receive) -> None:
    """Throw away what still arrives of a body, for a moment; see :data:`LINGER_SECONDS`."""
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while True:
                event = await receive()
                if event["type"] != "http.request" or not event.get("more_body", False):
                    return
    except TimeoutError:
        pass
