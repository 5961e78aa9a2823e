"""Large answers are written in pieces, each when there is room for it.

A server that is handed an answer of megabytes encrypts all of it at once and keeps that until the caller has it; of TLS's own
buffer the connection keeps the size for good. Thirty callers of 8 MB took 600 MB so. In pieces a connection holds two of them,
and the answer itself is shared by all who are sent it.
"""

from __future__ import annotations

from typing import Any

import falcon.asgi

#: Bytes of a piece: whole TLS records of 16 KiB. Smaller ones cost more turns of the event loop, larger ones memory.
PIECE_BYTES = 256 * 1024


class ResponseChunks:
    """An asynchronous iterator over a copy of each piece in turn."""

    def __init__(self, answer: bytes) -> None:
        self._rest = memoryview(answer)

    def __repr__(self) -> str:
        return f"ResponseChunks({len(self._rest)} bytes left)"

    def __aiter__(self) -> ResponseChunks:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        piece, self._rest = self._rest[:PIECE_BYTES].tobytes(), self._rest[PIECE_BYTES:]
        return piece


def put(response: falcon.asgi.Response, answer: bytes) -> None:
    """Make ``answer`` the body of ``response``."""
    if len(answer) <= PIECE_BYTES:
        response.data = answer
    else:
        stream: Any = ResponseChunks(answer)
        response.set_stream(stream, len(answer))
