"""One connection to a node: answers in every form, what is cut short, and the lines of a log stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from pgnode.testing.connection import Connection, LogViewer, NoAnswerError
from tests.support.polling import eventually

HEAD = b"GET / HTTP/1.1\r\n\r\n"
SECONDS = 30.0


class Ends(NamedTuple):
    """A connection, and the node's end of it."""

    connection: Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted.put((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    connection = Connection(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    made = Ends(connection, *await accepted.get())
    yield made
    await connection.close()
    made.writer.transport.abort()
    with contextlib.suppress(OSError):
        await made.writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", 200, b"yes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nye\r\n1;more\r\ns\r\n0\r\n\r\n", 200, b"yes"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    ],
)
async def test_an_answer_is_read_by_what_its_head_says(ends: Ends, answer: bytes, status: int, body: bytes) -> None:
    ends.writer.write(answer)
    response = await ends.connection.exchange(HEAD + b"body", [b" of two", b" blocks"], SECONDS)
    assert (response.status, response.body, response.closes) == (status, body, False)
    assert await ends.reader.readexactly(len(HEAD) + 18) == HEAD + b"body of two blocks"
    assert not ends.connection.ended
    assert ends.connection.used_at_seconds > 0


async def test_an_answer_of_no_length_ends_with_the_connection(ends: Ends) -> None:
    ends.writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nall that is left")
    ends.writer.write_eof()
    response = await ends.connection.exchange(HEAD, [], SECONDS)
    assert (response.status, response.body, response.closes) == (400, b"all that is left", True)
    assert ends.connection.ended


async def test_an_answer_may_come_before_the_body_was_sent(ends: Ends) -> None:
    ends.writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
    asked = asyncio.create_task(ends.connection.exchange(HEAD, [bytes(1 << 24)] * 4, SECONDS))
    await eventually(lambda: ends.connection.ended, "it is given up")
    ends.writer.transport.abort()
    assert (await asked).status == 413
    assert ends.connection.ended, "what is left of the body is not sent"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncut"])
async def test_what_is_cut_short_is_no_answer(ends: Ends, answer: bytes) -> None:
    ends.writer.write(answer)
    ends.writer.write_eof()
    with pytest.raises(NoAnswerError, match=r"no answer from the node|was cut short"):
        await ends.connection.exchange(HEAD, [], SECONDS)


async def test_an_answer_has_a_deadline(ends: Ends) -> None:
    with pytest.raises(NoAnswerError, match="TimeoutError"):
        await ends.connection.read_response(0.01)


async def test_bytes_go_out_as_they_are(ends: Ends) -> None:
    assert ends.connection.source_port == ends.writer.get_extra_info("peername")[1]
    ends.connection.send(b"no sane client's")
    await ends.connection.drain()
    assert await ends.reader.readexactly(16) == b"no sane client's"
    ends.writer.write(b"bye")
    ends.writer.write_eof()
    assert await ends.connection.wait_end(SECONDS) == b"bye"
    ends.connection.end_input()
    assert ends.connection.ended
    assert await ends.reader.read() == b""


async def test_a_reset_is_an_end(ends: Ends) -> None:
    ends.writer.transport.abort()
    assert await ends.connection.wait_end(SECONDS) == b""


async def test_a_log_viewer_gives_lines_without_heartbeats(ends: Ends) -> None:
    ends.writer.write(b"6\r\n\none\nt\r\n4\r\nwo\n\n\r\n6\r\nthree\n\r\n")
    viewer = LogViewer(ends.connection, {"content-type": "text/plain"})
    assert viewer.headers == {"content-type": "text/plain"}
    assert await viewer.next_line(SECONDS) == "one"
    assert await viewer.wait_for("re", SECONDS) == "three"


async def test_a_log_stream_that_ends_says_so(ends: Ends) -> None:
    ends.writer.write(b"4\r\none\n\r\n0\r\n\r\n")
    with pytest.raises(EOFError, match="the node ended the log stream"):
        await LogViewer(ends.connection, {}).wait_for("two", SECONDS)


async def test_all_lines_of_a_while(ends: Ends) -> None:
    ends.writer.write(b"8\r\none\ntwo\n\r\n0\r\n\r\n")
    assert await LogViewer(ends.connection, {}).lines_within(SECONDS) == ["one", "two"]
