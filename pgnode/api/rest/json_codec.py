"""JSON beside protobuf over REST: what a caller has to say for it, and the way from one form into the other.

Only requests that send or ask for JSON come here; all others pay for looking at two headers.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import NamedTuple

from pgnode.api.methods import Method
from pgnode.api.service.node_service import Handler
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import frame
from pgnode.wire.json_form import message_of, text_of

JSON = "application/json"
_PROTOBUF = "application/x-protobuf"

#: Messages above this are converted in a thread: JSON takes a hundred times as long as protobuf.
THREAD_BYTES = 16_384


class JsonForm(NamedTuple):
    """Which sides of a call are JSON."""

    body: bool
    answer: bool


@functools.lru_cache(maxsize=256)
def prefers_json(accept: bytes) -> bool:
    """Whether an Accept header asks for JSON: it names it, and does not name protobuf at the same quality or a higher.

    Wildcards ask for nothing: the node's own form is protobuf.
    """
    qualities = {JSON: 0.0, _PROTOBUF: 0.0}
    for part in accept.decode("latin-1").lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name in qualities:
            qualities[name] = _quality(parameters)
    return qualities[JSON] > qualities[_PROTOBUF]


def _quality(parameters: list[str]) -> float:
    """The ``q`` among a media type's parameters (RFC 9110, section 12.4.2); 1 where it is missing or no number."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                break
    return 1.0


class JsonCodec:
    """Calls handlers for callers who speak JSON. Large messages are converted one after another, off the event loop.

    One at a time, because a large message takes many times its size while it is converted.
    """

    def __init__(self) -> None:
        self._converting = asyncio.Lock()

    async def answer(self, row: Method, handler: Handler, body: bytes, form: JsonForm) -> bytes:
        """The answer of ``handler`` to ``body``, each in its form. Raises InvalidRequestError and the handler's errors."""
        if form.body:
            body = await self._converted(lambda text: _request(row, text), body)
        answer = handler(body)
        message = answer if isinstance(answer, bytes) else await answer
        if form.answer:
            message = await self._converted(lambda data: text_of(row.response.FromString(data)), message)
        return message

    async def _converted(self, convert: Callable[[bytes], bytes], data: bytes) -> bytes:
        if len(data) <= THREAD_BYTES:
            return convert(data)
        async with self._converting:
            return await asyncio.to_thread(convert, data)


def _request(row: Method, text: bytes) -> bytes:
    """The request's bytes as a handler takes them."""
    if row.request is not pb.UsersChunk:
        return message_of(row.request, text).SerializeToString()
    # Chunks are a way to send a long list in parts. JSON that is whole needs none: its list is one Users message.
    return frame(pb.UsersChunk(users=message_of(pb.Users, text).users, last=True))
