"""Large answers are written in chunks, each when there is room for it.

A server that is handed an answer of megabytes encrypts all of it at once and keeps that until the caller has it; of TLS's own
buffer the connection keeps the size for good. Thirty callers of 8 MB took 600 MB that way. In chunks a connection holds two of
them, and the answer itself is shared by all who are sent it.
"""

from __future__ import annotations

from typing import Any

import falcon.asgi

from pgnode.bus.indexed import Body

#: Bytes of a chunk: whole TLS records of 16 KiB. Smaller ones cost more turns of the event loop, larger ones memory.
CHUNK_BYTES = 256 * 1024


class ResponseChunks:
    """An asynchronous iterator over a copy of each chunk in turn.

    Args:
        answer: What is cut into chunks.
    """

    def __init__(self, answer: Body) -> None:
        self._rest = memoryview(answer)

    def __repr__(self) -> str:
        return f"ResponseChunks({len(self._rest)} bytes left)"

    def __aiter__(self) -> ResponseChunks:
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk."""
        if not self._rest:
            raise StopAsyncIteration
        chunk, self._rest = self._rest[:CHUNK_BYTES].tobytes(), self._rest[CHUNK_BYTES:]
        return chunk


def set_body(response: falcon.asgi.Response, answer: Body) -> None:
    """Make ``answer`` the body of ``response``, in chunks where it is large."""
    if len(answer) <= CHUNK_BYTES:
        response.data = bytes(answer)
    else:
        stream: Any = ResponseChunks(answer)
        response.set_stream(stream, len(answer))
