"""The client's end of an HTTP/2 connection that carries calls of any method, and brings their answers. A machine without I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pgnode.xray.transport.frames import MAX_STREAM_ID, without_padding
from pgnode.xray.transport.headers import PathHeaders, RequestHeaders
from pgnode.xray.transport.http2 import Http2ClientConnection, Token

#: Bytes of answers that the core may send before it hears of us: an answer of 10 MB comes in three turns.
WINDOW_BYTES: Final = 4 * 1024 * 1024


class AnsweringConnection(Http2ClientConnection[Token]):
    """As its base, but for calls of any method, whose answers are handed out as they come.

    Args:
        path_of: Names the method of a call.
        take: Is given a call, and what has come of its answer.
        max_open: Calls under way at once.
        last_stream_id: The last stream that may be begun.
    """

    _drops_below = 0

    def __init__(
        self,
        path_of: Callable[[Token], str],
        take: Callable[[Token, bytes], None],
        *,
        max_open: int = 400,
        last_stream_id: int = MAX_STREAM_ID,
    ) -> None:
        super().__init__("", max_open=max_open, last_stream_id=last_stream_id, window=WINDOW_BYTES)
        self._path_of = path_of
        self._take = take
        self._paths = PathHeaders()

    def begin(self, token: Token, message: bytes) -> bool:
        """Begin a call, as the base does.

        Args:
            token: What it is called.
            message: What is sent.

        Returns:
            Whether another one may be begun.
        """
        self._paths.path = self._path_of(token)
        return super().begin(token, message)

    def _request_headers(self, _table_size: int) -> RequestHeaders:
        return self._paths

    def _data_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        token = self._open.get(stream_id)
        if token is not None:
            self._take(token, without_padding(flags, payload))
        super()._data_frame(flags, stream_id, payload)
