"""The client's end of one HTTP/2 connection that carries many unary gRPC calls of one method. A machine without I/O.

It does what the pipelined client needs and nothing else: bytes come in through :meth:`Http2ClientConnection.receive`, bytes
to send are taken with :meth:`Http2ClientConnection.take_output`. Headers are quick (:mod:`pgnode.xray.transport.headers`): the
peer is told to keep no table for them (SETTINGS_HEADER_TABLE_SIZE = 0). Answers of AlterInbound are empty, so no message is
put together here; :mod:`pgnode.xray.transport.answering` does that, for calls of any method.

RFC 9113 (HTTP/2), RFC 7541 (HPACK), https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (gRPC over it).
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from pgnode.xray.transport.frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    DATA_HEAD,
    DEFAULT_FRAME_SIZE,
    DEFAULT_TABLE_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEAD,
    HEADERS,
    MAX_STREAM_ID,
    MAX_WINDOW,
    MESSAGE_HEAD,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTING,
    SETTINGS,
    SETTINGS_HEADER_TABLE_SIZE,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_CONCURRENT_STREAMS,
    SETTINGS_MAX_FRAME_SIZE,
    TWO_U32,
    U32,
    WINDOW_UPDATE,
    Http2Error,
    frame,
    opening,
    read_u32,
    without_padding,
)
from pgnode.xray.transport.headers import AnswerBlock, AnswerHeaders, RequestHeaders
from pgnode.xray.transport.outcome import GRPC_UNAVAILABLE, Failure, outcome

Token = TypeVar("Token")

#: Received bytes after which the peer gets them back for the connection; half of what it may send.
GIVE_BACK_BYTES: Final = 32_768
#: A stream that receives this much in one frame gets it back at once; answers to AlterInbound have five bytes.
LARGE_ANSWER_BYTES: Final = 1_024
#: Header bytes of one answer, CONTINUATION included.
MAX_HEADER_BYTES: Final = 65_536


class Http2ClientConnection(Generic[Token]):
    """Calls of one method on one connection. A call is named by the caller's own ``token``, whatever that is.

    How calls ended is in ``finished``: (token, None) for success, (token, Failure) otherwise. ``refused`` holds the tokens
    that the peer has certainly not handled, to be sent again elsewhere. The caller empties both after each ``receive``.
    """

    #: Bytes of an answer below which it is dropped without a look.
    _drops_below = LARGE_ANSWER_BYTES

    def __init__(
        self, path: str, *, max_open: int = 400, last_stream_id: int = MAX_STREAM_ID, window: int = DEFAULT_WINDOW
    ) -> None:
        self._path = path
        self._max_open = max_open
        self._last_stream_id = last_stream_id
        self._next_id = 1
        self._open: dict[int, Token] = {}
        #: What is left to send of a call that flow control holds up: [bytes, the stream's window].
        self._held: dict[int, tuple[memoryview, int]] = {}
        self._output: list[bytes] = []
        self._rest = b""
        # What the peer allows.
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._max_frame = DEFAULT_FRAME_SIZE
        self._peer_max_open = MAX_STREAM_ID
        # What was received and not given back.
        self._received = 0
        self._requests: RequestHeaders | None = None
        self._answers = AnswerHeaders()
        #: A header block that goes on in CONTINUATION frames: stream, flags, bytes.
        self._partial: tuple[int, int, bytes] | None = None
        #: Streams whose first headers had another HTTP status than 200.
        self._http_status: dict[int, str] = {}
        self.finished: list[tuple[Token, Failure | None]] = []
        self.refused: list[Token] = []
        #: The peer's SETTINGS are there; nothing may be begun before.
        self.ready = False
        #: No call can be begun here any more: GOAWAY came, or stream ids ran out. Those that are open go on.
        self.draining = False
        self._output.append(opening(window))

    def __repr__(self) -> str:
        state = "draining" if self.draining else "ready" if self.ready else "new"
        return (
            f"<Http2ClientConnection {state}, {len(self._open)} open, {len(self._held)} held up, window {self._window}>"
        )

    def take_finished(self) -> list[tuple[Token, Failure | None]]:
        """Return the calls that ended since this was asked last, in their order, with what went wrong."""
        finished, self.finished = self.finished, []
        return finished

    def take_refused(self) -> list[Token]:
        """Return the calls that the peer has not begun, since this was asked last: they may be begun elsewhere."""
        refused, self.refused = self.refused, []
        return refused

    # --- sending

    @property
    def open_count(self) -> int:
        """Calls that have not ended."""
        return len(self._open)

    @property
    def can_begin(self) -> bool:
        """Whether :meth:`begin` may be called now."""
        return (
            self.ready
            and not self.draining
            and self._window > 0
            and not self._held
            and len(self._open) < self._max_open
            and len(self._open) < self._peer_max_open
        )

    def begin(self, token: Token, message: bytes) -> bool:
        """Begin a call; only while ``can_begin``. What flow control does not let through follows by itself.

        Args:
            token: What it is called when it ends.
            message: What is sent.

        Returns:
            Whether another one may be begun.
        """
        stream_id = self._next_id
        self._next_id = stream_id + 2
        if self._next_id > self._last_stream_id:
            self.draining = True
        self._open[stream_id] = token
        assert self._requests is not None, "begun before the peer's SETTINGS"
        headers = self._requests.next()
        size = len(message)
        length = size + 5
        if length <= self._window and length <= self._stream_window and length <= self._max_frame:
            self._window -= length
            self._output.append(
                b"%b%b%b%b"
                % (
                    HEAD.pack(0, len(headers), HEADERS, END_HEADERS, stream_id),
                    headers,
                    DATA_HEAD.pack(length >> 16, length & 0xFFFF, DATA, END_STREAM, stream_id, 0, size),
                    message,
                )
            )
        else:
            self._output.append(HEAD.pack(0, len(headers), HEADERS, END_HEADERS, stream_id) + headers)
            self._held[stream_id] = (memoryview(MESSAGE_HEAD.pack(0, size) + message), self._stream_window)
            self._send_held()
        # As can_begin says.
        count = len(self._open)
        return (
            not self.draining
            and self._window > 0
            and not self._held
            and count < self._max_open
            and count < self._peer_max_open
        )

    def cancel(self, tokens: set[Token]) -> None:
        """Give up those calls among ``tokens`` that are open; they are not told of in ``finished``."""
        gone = [stream_id for stream_id, token in self._open.items() if token in tokens]
        for stream_id in gone:
            self._forget(stream_id)
            self._output.append(frame(RST_STREAM, 0, stream_id, U32.pack(CANCEL)))

    def go_away(self, code: int, text: str = "") -> None:
        """Send GOAWAY; the connection is to be closed after that."""
        self.draining = True
        self._output.append(frame(GOAWAY, 0, 0, TWO_U32.pack(0, code) + text.encode()))

    def take_output(self) -> bytes:
        """Take what is to be sent now."""
        output, self._output = self._output, []
        return output[0] if len(output) == 1 else b"".join(output)

    def take_open(self) -> list[Token]:
        """Take all calls that are open; the machine forgets them (the connection is gone)."""
        tokens = list(self._open.values())
        self._open.clear()
        self._held.clear()
        self.draining = True
        return tokens

    def _send_held(self) -> None:
        for stream_id, held in list(self._held.items()):
            rest, window = held
            while rest and self._window > 0 and window > 0:
                part = rest[: min(self._window, window, self._max_frame)]
                rest = rest[len(part) :]
                window -= len(part)
                self._window -= len(part)
                self._output.append(frame(DATA, 0 if rest else END_STREAM, stream_id, bytes(part)))
            if rest:
                self._held[stream_id] = (rest, window)
            else:
                del self._held[stream_id]

    def _forget(self, stream_id: int) -> Token | None:
        if self._held:
            self._held.pop(stream_id, None)
        if self._http_status:
            self._http_status.pop(stream_id, None)
        return self._open.pop(stream_id, None)

    # --- receiving

    def receive(self, data: bytes) -> None:
        """Take what came in. Raises Http2Error; the machine cannot be used after that."""
        buffer = self._rest + data if self._rest else data
        at, end = 0, len(buffer)
        known, opened, finished, unpack = self._answers.known, self._open, self.finished, HEAD.unpack_from
        drops_below = self._drops_below
        while end - at >= 9:
            high, low, kind, flags, stream_id = unpack(buffer, at)
            length = high << 16 | low
            if length > DEFAULT_FRAME_SIZE:
                raise Http2Error(FRAME_SIZE_ERROR, f"a frame of {length:,} bytes")
            begin, at = at + 9, at + 9 + length
            if at > end:
                at = begin - 9
                break
            stream_id &= MAX_STREAM_ID
            if self._partial is not None and kind != CONTINUATION:
                raise Http2Error(PROTOCOL_ERROR, "headers are not continued")
            if kind == DATA and not flags & END_STREAM and length < drops_below and stream_id in opened:
                self._received += length
            elif kind == HEADERS and not flags & (PADDED | PRIORITY) and flags & END_HEADERS:
                block = known.get(raw := buffer[begin:at]) or self._answers.decode(raw)
                if not flags & END_STREAM and block.http_status == "200" and stream_id in opened:
                    continue
                if block.succeeds and flags & END_STREAM and not self._http_status and not self._held:
                    # How nearly all answers end; the same as below.
                    token = opened.pop(stream_id, None)
                    if token is not None:
                        finished.append((token, None))
                        continue
                self._headers_end(stream_id, flags, block)
            else:
                self._other_frame(kind, flags, stream_id, buffer[begin:at])
        self._rest = buffer[at:]
        if self._received >= GIVE_BACK_BYTES:
            self._output.append(frame(WINDOW_UPDATE, 0, 0, U32.pack(self._received)))
            self._received = 0

    def _headers_end(self, stream_id: int, flags: int, block: AnswerBlock) -> None:
        token = self._open.get(stream_id)
        if token is None:
            self._check_begun(stream_id)
            return  # given up by us
        if not flags & END_STREAM:
            if block.http_status != "200":
                self._http_status[stream_id] = block.http_status
            return
        status = self._http_status.get(stream_id) or block.http_status or "200"
        held = stream_id in self._held
        self._forget(stream_id)
        if held:
            # Answered before it was sent whole: the peer does not want the rest, and must not wait for it.
            self._output.append(frame(RST_STREAM, 0, stream_id, U32.pack(CANCEL)))
        self.finished.append((token, outcome(status, block.grpc_status, block.grpc_message)))

    def _check_begun(self, stream_id: int) -> None:
        if stream_id >= self._next_id or not stream_id & 1:
            raise Http2Error(PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never begun")

    def _other_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == DATA:
            self._data_frame(flags, stream_id, payload)
        elif kind == HEADERS:
            payload = without_padding(flags, payload)
            if flags & PRIORITY:
                payload = payload[5:]
            self._block_part(stream_id, flags, payload)
        elif kind == CONTINUATION:
            if self._partial is None or self._partial[0] != stream_id:
                raise Http2Error(PROTOCOL_ERROR, "a continuation of no headers")
            _, first_flags, begun = self._partial
            self._partial = None
            if len(begun) + len(payload) > MAX_HEADER_BYTES:
                raise Http2Error(PROTOCOL_ERROR, f"headers of more than {MAX_HEADER_BYTES:,} bytes")
            self._block_part(stream_id, first_flags & ~END_HEADERS | flags & END_HEADERS, begun + payload)
        elif kind == RST_STREAM:
            self._reset(stream_id, read_u32(payload))
        elif kind == SETTINGS:
            self._settings(flags, payload)
        elif kind == PING:
            if len(payload) != 8:
                raise Http2Error(FRAME_SIZE_ERROR, "a PING of another length than 8")
            if not flags & ACK:
                self._output.append(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self._goaway(payload)
        elif kind == WINDOW_UPDATE:
            self._window_update(stream_id, read_u32(payload))
        elif kind == PUSH_PROMISE:
            raise Http2Error(PROTOCOL_ERROR, "a push, which was switched off")
        # Other kinds are to be ignored (RFC 9113, 4.1).

    def _block_part(self, stream_id: int, flags: int, payload: bytes) -> None:
        if flags & END_HEADERS:
            self._headers_end(stream_id, flags, self._answers.decode(payload))
        else:
            self._partial = (stream_id, flags, payload)

    def _data_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._check_begun(stream_id)
        self._received += len(payload)
        token = self._open.get(stream_id)
        if token is None:
            return
        if flags & END_STREAM:
            self._forget(stream_id)
            self.finished.append((token, Failure(GRPC_UNAVAILABLE, "an answer without a gRPC status")))
        elif len(payload) >= LARGE_ANSWER_BYTES:
            self._output.append(frame(WINDOW_UPDATE, 0, stream_id, U32.pack(len(payload))))

    def _reset(self, stream_id: int, code: int) -> None:
        self._check_begun(stream_id)
        token = self._forget(stream_id)
        if token is None:
            return
        if code == REFUSED_STREAM:
            self.refused.append(token)
        else:
            # Whether the call was carried out is not known.
            self.finished.append((token, Failure(GRPC_UNAVAILABLE, f"the call was reset (HTTP/2 error {code})")))

    def _goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise Http2Error(FRAME_SIZE_ERROR, "a GOAWAY that is too short")
        last_id, _ = TWO_U32.unpack_from(payload)
        self.draining = True
        for stream_id in [known for known in self._open if known > last_id & MAX_STREAM_ID]:
            if (token := self._forget(stream_id)) is not None:
                self.refused.append(token)

    def _window_update(self, stream_id: int, increment: int) -> None:
        increment &= MAX_WINDOW
        if not increment:
            raise Http2Error(PROTOCOL_ERROR, "a window grows by nothing")
        if not stream_id:
            self._window += increment
            if self._window > MAX_WINDOW:
                raise Http2Error(FLOW_CONTROL_ERROR, "the window of the connection is too large")
        else:
            self._check_begun(stream_id)
            held = self._held.get(stream_id)
            if held is None:
                return
            if held[1] + increment > MAX_WINDOW:
                raise Http2Error(FLOW_CONTROL_ERROR, "the window of a stream is too large")
            self._held[stream_id] = (held[0], held[1] + increment)
        self._send_held()

    def _request_headers(self, table_size: int) -> RequestHeaders:
        return RequestHeaders(self._path, table_size)

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            # From here on the peer keeps no table, and says so at the start of its next headers.
            self._answers.keep_no_table()
            return
        if len(payload) % 6:
            raise Http2Error(FRAME_SIZE_ERROR, "SETTINGS that are cut short")
        table_size = DEFAULT_TABLE_SIZE
        for name, value in SETTING.iter_unpack(payload):
            if name == SETTINGS_HEADER_TABLE_SIZE:
                table_size = value
            elif name == SETTINGS_MAX_CONCURRENT_STREAMS:
                self._peer_max_open = value
            elif name == SETTINGS_INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise Http2Error(FLOW_CONTROL_ERROR, "SETTINGS with too large a window")
                more = value - self._stream_window
                self._stream_window = value
                self._held = {key: (rest, window + more) for key, (rest, window) in self._held.items()}
            elif name == SETTINGS_MAX_FRAME_SIZE:
                if not DEFAULT_FRAME_SIZE <= value < 2**24:
                    raise Http2Error(PROTOCOL_ERROR, "SETTINGS with an impossible frame size")
                self._max_frame = value
        if self._requests is None:
            self._requests = self._request_headers(table_size)
        elif SETTINGS_HEADER_TABLE_SIZE in {name for name, _ in SETTING.iter_unpack(payload)}:
            # Headers that were encoded with the old table mean nothing any more.
            self.draining = True
        self._output.append(frame(SETTINGS, ACK, 0))
        self.ready = True
        self._send_held()
