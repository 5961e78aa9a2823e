"""JSON beside protobuf over REST: converts one form into the other, for callers who speak JSON."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from pgnode.api.methods import Method
from pgnode.api.rest.negotiation import JsonForm
from pgnode.api.service.tracked import Handler
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import frame
from pgnode.wire.json_form import message_of, text_of

#: Messages above this are converted in a thread: JSON takes a hundred times as long as protobuf.
THREAD_BYTES = 16_384


class JsonCodec:
    """Calls handlers for callers who speak JSON. Large messages are converted one after another, off the event loop.

    One at a time, because a large message takes many times its size while it is converted.

    Args:
        thread_bytes: Size above which a message is large.
    """

    def __init__(self, thread_bytes: int = THREAD_BYTES) -> None:
        self._thread_bytes = thread_bytes
        self._converting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"JsonCodec({'converting' if self._converting.locked() else 'idle'})"

    async def answer(self, row: Method, handler: Handler, body: bytes, form: JsonForm) -> bytes:
        """Call a handler, and convert what it takes and returns.

        Args:
            row: The method.
            handler: The method's handler.
            body: The body as it came.
            form: Which sides are JSON.

        Returns:
            The body of the answer.

        Raises:
            InvalidRequestError: The body is not JSON of the method's message.
        """
        if form.body:
            body = await self._converted(functools.partial(_request, row), body)
        answer = handler(body)
        message = answer if isinstance(answer, bytes) else await answer
        if form.answer:
            message = await self._converted(functools.partial(_response, row), message)
        return message

    async def _converted(self, convert: Callable[[bytes], bytes], data: bytes) -> bytes:
        if len(data) <= self._thread_bytes:
            return convert(data)
        async with self._converting:
            return await asyncio.to_thread(convert, data)


def _request(row: Method, text: bytes) -> bytes:
    """Return the request's bytes as a handler takes them."""
    if row.request is not pb.UsersChunk:
        return message_of(row.request, text).SerializeToString()
    # Chunks serve to send a long list piece by piece. A JSON body is whole: its list is one Users message.
    return frame(pb.UsersChunk(users=message_of(pb.Users, text).users, last=True))


def _response(row: Method, message: bytes) -> bytes:
    """Return the JSON of an answer."""
    return text_of(row.response.FromString(message))
