"""Calls over gRPC as frames of HTTP/2 (RFC 9113): whole ones, and such as are framed in odd ways. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import hpack

from tests.fuzz import messages, values
from tests.fuzz.cases import KEY, GrpcCase
from tests.fuzz.http_requests import CALM

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def encode(self, length: int | None = None) -> bytes:
        """Return its bytes; ``length`` is what it says of itself where that is not the truth."""
        size = len(self.payload) if length is None else length
        return (
            struct.pack(">I", size & 0xFFFFFF)[1:]
            + struct.pack(">BBI", self.kind, self.flags, self.stream)
            + self.payload
        )


def decode(data: bytes) -> Iterator[Frame]:
    """Return the whole frames at the beginning of ``data``."""
    at = 0
    while len(data) - at >= 9:
        size = int.from_bytes(data[at : at + 3], "big")
        if len(data) - at - 9 < size:
            return
        kind, flags, stream = struct.unpack(">BBI", data[at + 3 : at + 9])
        yield Frame(kind, flags, stream & 0x7FFFFFFF, data[at + 9 : at + 9 + size])
        at += 9 + size


def header_block(headers: Sequence[Header]) -> bytes:
    """Return the headers as literals, which no table remembers."""
    encoder = hpack.Encoder()
    return encoder.encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in headers], huffman=False)


def call_headers(method: str) -> list[Header]:
    """Return the headers of a call with the right key."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", f"/service.NodeService/{method}".encode()),
        (b":authority", b"node.example"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"x-api-key", KEY.encode()),
    ]


def grpc_message(data: bytes) -> bytes:
    """Return a message with its prefix."""
    return struct.pack(">BI", 0, len(data)) + data


def call_frames(method: str, bodies: Sequence[bytes], extra: Sequence[Header] = (), stream: int = 1) -> list[Frame]:
    """Return the frames of a whole call."""
    data = b"".join(grpc_message(body) for body in bodies)
    frames = [Frame(HEADERS, END_HEADERS, stream, header_block([*call_headers(method), *extra]))]
    pieces = [data[at : at + 16_000] for at in range(0, len(data), 16_000)] or [b""]
    frames += [Frame(DATA, 0, stream, piece) for piece in pieces[:-1]]
    return [*frames, Frame(DATA, END_STREAM, stream, pieces[-1])]


def frames_to(path: bytes) -> list[Frame]:
    """Return the frames of a call with an empty message to any path, with the right key."""
    headers = [(name, path if name == b":path" else value) for name, value in call_headers("")]
    return [Frame(HEADERS, END_HEADERS, 1, header_block(headers)), Frame(DATA, END_STREAM, 1, grpc_message(b""))]


def opened(frames: Sequence[Frame]) -> bytes:
    """Return a connection's bytes: preface, settings, frames."""
    return PREFACE + Frame(SETTINGS, 0, 0, b"").encode() + b"".join(frame.encode() for frame in frames)


def _bodies(rng: Random, name: str) -> list[bytes]:
    row = next(row for row in CALM if row.grpc_name == name)
    count = rng.choice((0, 1, 3)) if row.client_streaming else 1
    # The connection's first window has 64 KiB.
    return [messages.some_bytes(rng, row.request)[:15_000] for _ in range(count)]


def _metadata(rng: Random) -> Sequence[Header]:
    return rng.choice(
        (
            [],
            [],
            [(b"grpc-timeout", rng.choice((b"5S", b"0S", b"1n", b"-1S", b"99999999H", b"1", b"S", b"\xff")))],
            [(b"grpc-encoding", rng.choice((b"gzip", b"identity", b"quux", b"")))],
            [(b"grpc-accept-encoding", b"quux,gzip")],
            [(b"x-bin", rng.choice((b"AAEC", b"!!!", b"=", b"A" * 4000)))],
            [(b"x-api-key", rng.choice((b"", b"\xff\xfe", KEY.encode(), b"other")))],
            [(b"authorization", rng.choice((b"Bearer", b"\x80", b"Bearer " + KEY.encode(), b"bearer \xe9")))],
            [(b"user-agent", rng.choice((b"", b"grpc-go/1.0", b"\xc3\x28" * 50)))],
            [(b"a-%d" % number, b"v" * 50) for number in range(rng.choice((10, 100)))],
            [(b"grpc-tags-bin", b"AAAA"), (b"grpc-trace-bin", b"AAAA")],
            [(b"content-length", rng.choice((b"0", b"5", b"x")))],
        )
    )


def whole_call(rng: Random) -> GrpcCase:
    """Return a call in good frames; its message and metadata may be odd."""
    row = rng.choice(CALM)
    frames = call_frames(row.grpc_name, _bodies(rng, row.grpc_name), _metadata(rng))
    return GrpcCase((opened(frames),), method=row.grpc_name)


def odd_frames(rng: Random) -> GrpcCase:
    """Return frames of which something is wrong."""
    row = rng.choice(CALM)
    frames = call_frames(row.grpc_name, _bodies(rng, row.grpc_name))
    changes: Sequence[Callable[[], bytes]] = (
        lambda: values.spoil_bytes(rng, opened(frames)),
        lambda: opened(_odd_headers(rng, frames, row.grpc_name)),
        lambda: opened(_odd_message(rng, frames)),
        lambda: opened(_odd_order(rng, frames)),
        lambda: opened([*_odd_extra(rng), *frames]),
        lambda: opened([frames[0], *_odd_extra(rng), *frames[1:]]),
        lambda: opened(frames)[len(PREFACE) :],
        lambda: opened(frames)[: rng.randrange(len(opened(frames)))],
        lambda: PREFACE + rng.randbytes(rng.randrange(1, 300)),
        lambda: PREFACE + frames[0].encode(length=rng.choice((0, 1, 16_384, 16_385, 0xFFFFFF))),
    )
    data = rng.choice(changes)()
    parts: tuple[bytes, ...] = (data,)
    if rng.random() < 0.2:
        at = rng.randrange(len(data) + 1)
        parts = (data[:at], data[at:])
    return GrpcCase(parts, ending="cuts" if rng.random() < 0.2 else "waits")


def _odd_headers(rng: Random, frames: list[Frame], method: str) -> list[Frame]:
    usual = call_headers(method)
    at = rng.randrange(len(usual))
    path = rng.choice(
        (b"", b"/", b"//", b"/service.NodeService", b"/service.NodeService/\xff", b"/x/" + b"y" * 5000, b"*", b"info")
    )
    headers = rng.choice(
        (
            usual[:at] + usual[at + 1 :],
            [*usual, usual[at]],
            [*usual[3:], *usual[:3]],
            [(b":path", path) if name == b":path" else (name, value) for name, value in usual],
            [(b":method", b"GET") if name == b":method" else (name, value) for name, value in usual],
            [
                (b"content-type", b"application/json") if name == b"content-type" else (name, value)
                for name, value in usual
            ],
            [*usual, (rng.choice((b"Upper", b"", b"a b", b"a\0", b":odd", b"connection", b"x-\xff")), b"v")],
            [*usual, (b"a", rng.choice((b"\0", b"\r\n", b" x ", b"\xff" * 30, b"v" * 16_000)))],
        )
    )
    return [Frame(HEADERS, END_HEADERS, 1, header_block(headers)), *frames[1:]]


def _odd_message(rng: Random, frames: list[Frame]) -> list[Frame]:
    data = rng.choice(
        (
            b"\x01\0\0\0\x05abcde",
            b"\x02\0\0\0\0",
            b"\xff\0\0\0\0",
            b"\0\xff\xff\xff\xffabc",
            b"\0\0\x50\0\0abc",
            b"\0\0\0\0",
            b"\0\0\0\0\x05ab",
            b"\0\0\0\0\0" * 50,
            b"",
            rng.randbytes(rng.randrange(1, 100)),
        )
    )
    flags = rng.choice((END_STREAM, END_STREAM, 0))
    if rng.random() < 0.2:
        return [frames[0], Frame(DATA, flags | PADDED, 1, bytes([rng.choice((0, 3, 255))]) + data)]
    return [frames[0], Frame(DATA, flags, 1, data)]


def _odd_order(rng: Random, frames: list[Frame]) -> list[Frame]:
    first = frames[0]
    half = len(first.payload) // 2
    begun = Frame(HEADERS, 0, 1, first.payload[:half])
    rest = Frame(CONTINUATION, END_HEADERS, 1, first.payload[half:])
    return rng.choice(
        (
            [begun, rest, *frames[1:]],
            [begun, *frames[1:]],
            [begun],
            [begun, Frame(PING, 0, 0, b"12345678"), rest],
            [rest],
            [*frames[1:], first],
            [first, first, *frames[1:]],
            [*frames, frames[-1]],
            [*frames, Frame(HEADERS, END_HEADERS | END_STREAM, 1, header_block([(b"late", b"x")]))],
            [Frame(frame.kind, frame.flags, rng.choice((0, 2, 0x7FFFFFFF)), frame.payload) for frame in frames],
            [first, Frame(RST_STREAM, 0, 1, struct.pack(">I", rng.choice((0, 8, 0xFFFFFFFF))))],
            [*frames, Frame(RST_STREAM, 0, 1, struct.pack(">I", 8))],
            [begun, *(Frame(CONTINUATION, 0, 1, b"") for _ in range(500)), rest, *frames[1:]],
        )
    )


def _odd_extra(rng: Random) -> list[Frame]:
    number = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF))
    word = struct.pack(">I", number)
    return rng.choice(
        (
            [Frame(SETTINGS, 0, 0, struct.pack(">HI", rng.choice((1, 2, 3, 4, 5, 6, 8, 999)), number))],
            [Frame(SETTINGS, 0, 1, b"")],
            [Frame(SETTINGS, ACK, 0, b"abcdef")],
            [Frame(SETTINGS, 0, 0, b"abcde")],
            [Frame(PING, 0, 0, b"12345678")] * 3,
            [Frame(PING, 0, 0, b"123")],
            [Frame(PING, 0, 1, b"12345678")],
            [Frame(WINDOW_UPDATE, 0, rng.choice((0, 1, 99)), word)],
            [Frame(WINDOW_UPDATE, 0, 0, b"ab")],
            [Frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 0))],
            [Frame(PRIORITY, 0, 0, b"abcde")],
            [Frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2))],
            [Frame(GOAWAY, 0, 0, struct.pack(">II", 0, number))],
            [Frame(RST_STREAM, 0, rng.choice((0, 1, 5)), word)],
            [Frame(rng.randrange(10, 256), rng.randrange(256), rng.choice((0, 1, 7)), rng.randbytes(20))],
            [Frame(DATA, END_STREAM, rng.choice((0, 5)), b"abc")],
        )
    )
