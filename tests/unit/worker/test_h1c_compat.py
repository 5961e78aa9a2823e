"""The fast parser with more room, and what is relied on of the one below it."""

from __future__ import annotations

from typing import Any

import pytest

h1c = pytest.importorskip("gunicorn_h1c", reason="gunicorn_h1c is built at its installation, which takes a C compiler")


from pgnode.worker.h1c_compat import FEED_BYTES, RoomyParser  # noqa: E402 - only where the parser is there

#: What the parser, which is written in C, has.
PARSER = {"feed", "is_complete", "path", "remaining", "remaining_truncated", "reset"}


@pytest.mark.parametrize("name", sorted(PARSER))
def test_a_member_of_the_parser(name: str) -> None:
    assert hasattr(h1c.H1CProtocol, name)


def request(body: bytes) -> bytes:
    return b"PUT /x HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def parsed_by(parser_class: Any, data: list[bytes]) -> list[bytes]:
    """The bodies of all requests, one after the other, as Gunicorn reads them."""
    bodies: list[bytes] = [b""]

    def on_body(chunk: bytes) -> None:
        bodies[-1] += chunk

    parser = parser_class(on_headers_complete=lambda: False, on_body=on_body, on_message_complete=lambda: None)
    for piece in data:
        parser.feed(piece)
    while parser.is_complete:
        rest = parser.remaining()
        parser.reset()
        bodies.append(b"")
        if not rest:
            break
        parser.feed(rest)
    return bodies[:-1]


def test_a_large_request_behind_another_is_kept_whole() -> None:
    large = bytes(range(256)) * 1000
    assert parsed_by(RoomyParser, [request(b"first"), request(large)]) == [b"first", large]
    assert parsed_by(RoomyParser, [request(b"first") + request(large)]) == [b"first", large]
    small = [request(b"%d" % number) for number in range(5)]
    assert parsed_by(RoomyParser, [b"".join(small)]) == [b"0", b"1", b"2", b"3", b"4"]


def test_the_parser_alone_would_cut_it() -> None:
    """When this fails the parser needs no help any more."""
    parser = h1c.H1CProtocol()
    parser.feed(request(b"first"))
    assert not parser.remaining_truncated
    parser.feed(bytes(100_000))
    assert parser.remaining_truncated
    assert FEED_BYTES < len(parser.remaining()) < 100_000


def test_what_waits_is_counted_and_forgotten() -> None:
    parser = RoomyParser()
    parser.feed(request(b"first") + bytes(3 * FEED_BYTES))
    assert len(parser.tail) >= 2 * FEED_BYTES
    assert len(parser.remaining()) == 3 * FEED_BYTES
    parser.reset()
    assert (parser.tail, parser.remaining()) == (b"", b"")


def test_the_request_line_is_looked_at_before_the_headers_are_there() -> None:
    def fed(*pieces: bytes) -> None:
        parser = RoomyParser(
            on_headers_complete=lambda: False, on_body=lambda _: None, on_message_complete=lambda: None
        )
        for piece in pieces:
            parser.feed(piece)

    fed(b"GET /in", b"fo HTTP/1.1\r\n", b"Host: n\r\n", b"\r\n")
    fed(b"GET /info HTTP/1.0\r\n")
    fed(b"PUT /x HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"a\nb")
    for pieces in ([b"GET /info\r\n"], [b"GET /in", b"fo", b"\r\n"]):
        with pytest.raises(h1c.InvalidHTTPVersion):
            fed(*pieces)
