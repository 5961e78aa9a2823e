"""How requests are read by a real worker: with both parsers, in pieces, too early, too long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gunicorn.asgi.parser import ParseError
from hypothesis import given
from hypothesis import strategies as st

from pgnode.worker.gunicorn_compat import LineLimitParser
from pgnode.worker.http_parsers import FAST_PARSER_INSTALLED
from tests.support.gunicorn_worker import App, RecordingWorker, answer_of, connected, request, serving
from tests.support.polling import eventually

#: The parsers that are there.
PARSERS = ["python", *(["fast"] if FAST_PARSER_INSTALLED else [])]


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_request_line_without_a_version_is_answered_at_once(parser: str) -> None:
    async with serving(RecordingWorker, App(), http_parser=parser) as (_, port), connected(port) as (reader, writer):
        writer.write(b"GET /info\r\n")
        assert (await answer_of(reader))[0] == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 10_000 + b"\r\n\r\n", 431),
        (b"PUT /x HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_what_is_no_request_is_answered_in_our_form(data: bytes, status: int) -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert await reader.read() == b"%d!" % status
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Unknown" not in head
        assert b"content-type: text/x-test\r\ncontent-length: 4\r\nconnection: close\r\n" in head
        assert f"error_content {status}" in worker.seen[0].calls


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_length_that_is_too_long_for_a_number_is_answered(parser: str) -> None:
    async with (
        serving(RecordingWorker, App(), http_parser=parser) as (_, port),
        connected(port) as (reader, writer),
    ):
        writer.write(b"PUT /x HTTP/1.1\r\nHost: n\r\nContent-Length: " + b"1" * 5000 + b"\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
            assert await reader.read() == b"400!"


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_large_request_that_comes_too_early_is_answered_and_counted(parser: str) -> None:
    app = App()
    large = bytes(200_000)
    async with serving(RecordingWorker, app, http_parser=parser) as (worker, port), connected(port) as (reader, writer):
        writer.write(b"PUT /wait HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\nok" + request(large))
        await writer.drain()
        await eventually(lambda: worker.seen and worker.seen[0]._http1_buffered() > 100_000, "what waits is counted")
        assert worker.seen[0]._http1_buffered() <= len(request(large))
        app.go_on.set()
        assert await answer_of(reader) == (200, b"ok")
        assert await answer_of(reader) == (200, large)
        assert worker.seen[0].calls.count("headers_read") == 2
        name = {"fast": "RoomyParser", "python": "LineLimitParser"}[parser]
        assert type(worker.seen[0]._callback_parser).__name__ == name


async def test_a_first_request_in_pieces() -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(b"PUT /x HTTP/1.1\r\n")
        await eventually(lambda: worker.seen and "request_begun" in worker.seen[0].calls, "the beginning was told")
        assert not worker.seen[0].was_asked
        assert not worker.seen[0].is_idle
        writer.write(b"Host: n\r\nContent-Length: 4\r\n\r\nbo")
        await eventually(lambda: worker.seen[0].was_asked, "the headers are there")
        calls = list(worker.seen[0].calls)
        writer.write(b"dy")
        assert await answer_of(reader) == (200, b"body")
        assert worker.seen[0].calls[: len(calls)] == calls
        assert worker.seen[0].calls.count("request_begun") == 1, "not for what belongs to the body"


async def test_the_beginning_of_a_request_is_told_until_its_headers_are_complete() -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        # Half of a second request comes in the packet of the first.
        writer.write(request(b"one") + b"PUT /x HT")
        assert await answer_of(reader) == (200, b"one")
        [connection] = worker.seen
        await eventually(lambda: "request_begun" in connection.calls, "the beginning was told")
        assert not connection._request_ready.is_set()
        writer.write(b"TP/1.1\r\nHost: n\r\nContent-Length: 3\r\n\r\ntwo")
        assert await answer_of(reader) == (200, b"two")
        assert connection.calls[-2:] == ["headers_read", "scope_built /x"]


CHUNKED = b"PUT /x HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n"

#: The longest line of a request, in bytes, in these tests.
LIMIT = 200

#: Requests by what is odd about them, whether they are taken, and their bytes.
LINES: dict[str, tuple[bool, bytes]] = {
    "size of a chunk, at the limit": (True, b"0" * LIMIT + b"\r\n\r\n"),
    "size of a chunk, longer": (False, b"0" * (LIMIT + 1) + b"\r\n\r\n"),
    "size of a further chunk, longer": (False, b"1\r\na\r\n" + b"0" * (LIMIT + 1) + b"\r\n\r\n"),
    "extension of a chunk, longer": (False, b"0;" + b"x" * LIMIT + b"\r\n\r\n"),
    "trailer, at the limit": (True, b"0\r\nx: " + b"y" * (LIMIT - 3) + b"\r\n\r\n"),
    "trailer, longer": (False, b"0\r\nx: " + b"y" * (LIMIT - 2) + b"\r\n\r\n"),
    "none": (True, b"3\r\nabc\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("name", LINES)
@given(cuts=st.lists(st.integers(0, len(CHUNKED) + 2 * LIMIT), max_size=6).map(sorted))
def test_a_line_that_is_too_long_is_refused_however_it_arrives(name: str, cuts: list[int]) -> None:
    taken, body = LINES[name]
    data = CHUNKED + body
    parser: Any = LineLimitParser(limit_request_field_size=LIMIT)
    try:
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            parser.feed(data[begin:end])
        assert parser.is_complete
    except ParseError:
        assert not taken
    else:
        assert taken
