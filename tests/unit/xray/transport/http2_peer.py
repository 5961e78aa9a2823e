"""The server's end of HTTP/2 in memory, strict about what a client may do; it holds what the client's machine is tested against.

It decodes with ``hpack``, keeps count of the windows it granted and fails where they are exceeded. What it answers, and when, is
up to the test.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import hpack

from pgnode.xray.transport import frames
from pgnode.xray.transport.frames import frame, settings_frame


@dataclass
class Call:
    """One call as the peer sees it."""

    headers: dict[str, str]
    body: bytes = b""
    whole: bool = False
    cancelled: bool = False
    window: int = 0

    @property
    def message(self) -> bytes:
        """The gRPC message, checked against its own length."""
        flag, length = struct.unpack(">BI", self.body[:5])
        assert flag == 0
        assert length == len(self.body) - 5
        return self.body[5:]


@dataclass
class Peer:
    """A server. ``settings`` are those it announces; ``keeps_table`` makes it encode as if the client had allowed a table."""

    settings: dict[int, int] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    pings_answered: list[bytes] = field(default_factory=list)
    goaway: int | None = None
    given_back: int = 0
    #: Sends WINDOW_UPDATE for whatever was received, at once.
    generous: bool = True

    def __post_init__(self) -> None:
        self._rest = b""
        self._preface = False
        self._decoder = hpack.Decoder()
        self._encoder = hpack.Encoder()
        self.window = frames.DEFAULT_WINDOW
        self.settings_acknowledged = False
        table = self.settings.get(frames.SETTINGS_HEADER_TABLE_SIZE, frames.DEFAULT_TABLE_SIZE)
        self._decoder.max_allowed_table_size = table
        self._output = [settings_frame(self.settings)]

    # --- what comes in

    def receive(self, data: bytes) -> None:
        buffer = self._rest + data
        if not self._preface:
            if len(buffer) < len(frames.PREFACE):
                self._rest = buffer
                return
            assert buffer.startswith(frames.PREFACE)
            buffer, self._preface = buffer[len(frames.PREFACE) :], True
        while len(buffer) >= 9:
            high, low, kind, flags, stream_id = struct.unpack_from(">BHBBI", buffer)
            length = high << 16 | low
            if len(buffer) < 9 + length:
                break
            self._frame(kind, flags, stream_id, buffer[9 : 9 + length])
            buffer = buffer[9 + length :]
        self._rest = buffer

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and flags & frames.ACK:
            self.settings_acknowledged = True
        elif kind == frames.SETTINGS:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == frames.SETTINGS_HEADER_TABLE_SIZE:
                    self._encoder.header_table_size = value
            self._output.append(frame(frames.SETTINGS, frames.ACK, 0))
        elif kind == frames.HEADERS:
            assert flags & frames.END_HEADERS
            assert stream_id & 1
            assert stream_id > max(self.calls, default=0), "stream ids only grow"
            window = self.settings.get(frames.SETTINGS_INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW)
            self.calls[stream_id] = Call(dict(self._decoder.decode(payload)), window=window)  # type: ignore[arg-type]
        elif kind == frames.DATA:
            self._data(flags, stream_id, payload)
        elif kind == frames.PING and flags & frames.ACK:
            self.pings_answered.append(payload)
        elif kind == frames.RST_STREAM:
            self.calls[stream_id].cancelled = True
        elif kind == frames.GOAWAY:
            self.goaway = struct.unpack(">II", payload[:8])[1]
        elif kind == frames.WINDOW_UPDATE:
            self.given_back += struct.unpack(">I", payload)[0]
        else:
            raise AssertionError(f"a frame of kind {kind}")

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        call = self.calls[stream_id]
        assert not call.whole
        assert len(payload) <= self.settings.get(frames.SETTINGS_MAX_FRAME_SIZE, frames.DEFAULT_FRAME_SIZE)
        self.window -= len(payload)
        call.window -= len(payload)
        assert self.window >= 0, "the connection's window is exceeded"
        assert call.window >= 0, "a stream's window is exceeded"
        call.body += payload
        call.whole = bool(flags & frames.END_STREAM)
        if self.generous and payload:
            self.grant(0, len(payload))
            self.grant(stream_id, len(payload))

    # --- what goes out

    def take_output(self) -> bytes:
        output, self._output = b"".join(self._output), []
        return output

    def send(self, *frames: bytes) -> None:
        self._output += frames

    def grant(self, stream_id: int, size: int) -> None:
        if stream_id:
            self.calls[stream_id].window += size
        else:
            self.window += size
        self.send(frame(frames.WINDOW_UPDATE, 0, stream_id, struct.pack(">I", size)))

    def headers(
        self, stream_id: int, fields: list[tuple[str, str]], *, end: bool, parts: int = 1, pad: int = 0
    ) -> None:
        """Headers or trailers, in ``parts`` frames, the first one with ``pad`` bytes of padding and a priority."""
        block = self._encoder.encode(fields)
        size = max(1, -(-len(block) // parts))
        pieces = [block[at : at + size] for at in range(0, len(block), size)] or [b""]
        for number, piece in enumerate(pieces):
            flags = frames.END_HEADERS if number == len(pieces) - 1 else 0
            if number:
                self.send(frame(frames.CONTINUATION, flags, stream_id, piece))
                continue
            flags |= frames.END_STREAM if end else 0
            if pad:
                flags |= frames.PADDED | frames.PRIORITY
            padded = bytes([pad]) + b"\0\0\0\0\x10" + piece + bytes(pad) if pad else piece
            self.send(frame(frames.HEADERS, flags, stream_id, padded))

    def answer(
        self, stream_id: int, status: int = 0, text: str = "", *, parts: int = 1, pad: int = 0, size: int = 0
    ) -> None:
        """A whole answer of gRPC with ``size`` bytes of message; an error has no message."""
        opening = [(":status", "200"), ("content-type", "application/grpc")]
        closing = [("grpc-status", str(status)), ("grpc-message", text)]
        if status:
            self.headers(stream_id, opening + closing, end=True, parts=parts, pad=pad)
            return
        self.headers(stream_id, opening, end=False, parts=parts, pad=pad)
        message = struct.pack(">BI", 0, size) + bytes(size)
        for at in range(0, len(message), frames.DEFAULT_FRAME_SIZE):
            self.send(frame(frames.DATA, 0, stream_id, message[at : at + frames.DEFAULT_FRAME_SIZE]))
        self.headers(stream_id, closing, end=True, parts=parts, pad=pad)

    def reset(self, stream_id: int, code: int) -> None:
        self.send(frame(frames.RST_STREAM, 0, stream_id, struct.pack(">I", code)))

    def say_goodbye(self, last_id: int) -> None:
        self.send(frame(frames.GOAWAY, 0, 0, struct.pack(">II", last_id, frames.NO_ERROR)))
