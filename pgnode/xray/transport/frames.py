"""Frames of HTTP/2, and the numbers in them (RFC 9113). Pure."""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

SETTINGS_HEADER_TABLE_SIZE: Final = 0x1
SETTINGS_ENABLE_PUSH: Final = 0x2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 0x3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 0x4
SETTINGS_MAX_FRAME_SIZE: Final = 0x5

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
FLOW_CONTROL_ERROR: Final = 0x3
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9

#: Both windows and the table, before anybody said otherwise (RFC 9113, 6.5.2 and 6.9.2).
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_SIZE: Final = 16_384
DEFAULT_TABLE_SIZE: Final = 4_096
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1

#: Head of a frame: length (24 bits, as one byte and two), kind, flags, stream.
HEAD: Final = struct.Struct(">BHBBI")
#: One setting: its name and its value.
SETTING: Final = struct.Struct(">HI")
#: Payload of WINDOW_UPDATE and RST_STREAM, and the beginning of that of GOAWAY.
U32: Final = struct.Struct(">I")
TWO_U32: Final = struct.Struct(">II")

#: Head of a gRPC message: not compressed, its length.
MESSAGE_HEAD: Final = struct.Struct(">BI")
#: Head of a DATA frame that holds the whole of a gRPC message, with the head of the message behind it.
DATA_HEAD: Final = struct.Struct(">BHBBIBI")


class Http2Error(Exception):
    """The peer broke the protocol: the connection cannot be used any more. ``code`` goes into the GOAWAY."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Encode one frame."""
    length = len(payload)
    return HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    """Encode a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in values.items()))


def opening(window: int = DEFAULT_WINDOW) -> bytes:
    """Encode what a client sends first.

    Args:
        window: Bytes that the server may send, on a stream and in all, before it hears of us.

    Returns:
        The preface and our settings: no table for headers, no pushes.
    """
    settings = {SETTINGS_HEADER_TABLE_SIZE: 0, SETTINGS_ENABLE_PUSH: 0}
    if window <= DEFAULT_WINDOW:
        return PREFACE + settings_frame(settings)
    more = frame(WINDOW_UPDATE, 0, 0, U32.pack(window - DEFAULT_WINDOW))
    return PREFACE + settings_frame(settings | {SETTINGS_INITIAL_WINDOW_SIZE: window}) + more


def read_u32(payload: bytes) -> int:
    """Decode a payload that is one number. Raises Http2Error."""
    if len(payload) != 4:
        raise Http2Error(FRAME_SIZE_ERROR, "a frame of another length than 4")
    value: int = U32.unpack(payload)[0]
    return value


def without_padding(flags: int, payload: bytes) -> bytes:
    """Return the payload of HEADERS without its padding. Raises Http2Error."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(PROTOCOL_ERROR, "padding that is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
