"""Requests that two readers may take apart differently: nobody's request hides in the body of another one's.

Each shape has a second request behind (or in) its body, which some lenient reader would take for one of its own. Here it never
is one: the first one is refused and its connection closed, or it is one request with all that follows as its body. Both
parsers are held to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from pgnode.bus.commands import Kind
from pgnode.testing.connection import Connection
from pgnode.testing.panel import NoAnswerError, PanelClient, Response
from pgnode.wire import service_pb2 as pb
from pgnode.worker.http_parsers import FAST_PARSER_INSTALLED
from tests.integration.worker.stage import MIB, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Time for an answer, and for the end of a connection; what does not end by itself ends after the time for a body.
END_SECONDS = 60.0


@dataclass(frozen=True)
class Shape:
    """A first request without its usual headers; ``{n}`` is the length of what follows the head."""

    name: str
    #: Lines of the head behind those of the usual ones, each with its end.
    lines: bytes
    #: What follows the head, before the second request.
    body: bytes = b""
    #: The request line.
    line: bytes = b"PUT /user/sync HTTP/1.1\r\n"
    #: Whether the first request must be refused; else it may be taken, with everything behind it as its body.
    refused: bool = True


CL = b"Content-Length: {n}\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n"


def framings() -> Iterator[Shape]:
    """Length and coding together, or each of them twice."""
    yield Shape("length and coding", CL + TE, LAST)
    yield Shape("coding and length", TE + CL, LAST)
    yield Shape("coding and a length of zero", TE + b"Content-Length: 0\r\n", LAST)
    yield Shape("two lengths", b"Content-Length: 0\r\n" + CL)
    yield Shape("two lengths, the other way round", CL + b"Content-Length: 0\r\n")
    yield Shape("the same length twice", CL + CL, refused=True)
    yield Shape("lengths in a list", b"Content-Length: 0, {n}\r\n")
    yield Shape("the same length in a list", b"Content-Length: {n}, {n}\r\n")
    yield Shape("coding twice", TE + TE, LAST)
    yield Shape("chunked in a list twice", b"Transfer-Encoding: chunked, chunked\r\n", LAST)
    yield Shape("identity behind chunked", TE + b"Transfer-Encoding: identity\r\n" + CL, LAST)
    yield Shape("length in another case", CL + b"tRANSFER-eNCODING: chunked\r\n", LAST)


def codings() -> Iterator[Shape]:
    """Codings that are chunked for some readers."""
    for name, value in {
        "identity": b"identity",
        "xchunked": b"xchunked",
        "chunkedx": b"chunkedx",
        "gzip, chunked": b"gzip, chunked",
        "chunked, gzip": b"chunked, gzip",
        "chunked, identity": b"chunked, identity",
        "identity, chunked": b"identity, chunked",
        "quoted": b'"chunked"',
        "apostrophes": b"'chunked'",
        "comma before": b", chunked",
        "comma behind": b"chunked,",
        "semicolon behind": b"chunked;",
        "parameter": b"chunked; q=1",
        "vertical tab": b"\x0bchunked",
        "form feed": b"\x0cchunked",
        "no-break space": b"\xa0chunked",
        "NUL behind": b"chunked\0",
        "NUL inside": b"chun\0ked",
        "carriage return before": b"\rchunked",
        "carriage return behind": b"chunked\r",
        "empty": b"",
        "another K": "chun\u212aed".encode(),
        "dotless": "\u0441hunked".encode(),
        "soft hyphen": b"chun\xadked",
    }.items():
        yield Shape(f"coding: {name}", CL + b"Transfer-Encoding: " + value + b"\r\n", LAST)
        if name not in ("identity",):
            yield Shape(f"coding alone: {name}", b"Transfer-Encoding: " + value + b"\r\n", LAST)


def names() -> Iterator[Shape]:
    """Names of headers that are the coding's for some readers."""
    for name, header in {
        "space before the colon": b"Transfer-Encoding : chunked",
        "tab before the colon": b"Transfer-Encoding\t: chunked",
        "space before the name": b" Transfer-Encoding: chunked",
        "tab before the name": b"\tTransfer-Encoding: chunked",
        "vertical tab before the name": b"\x0bTransfer-Encoding: chunked",
        "carriage return in the name": b"Transfer\r-Encoding: chunked",
        "carriage return behind the name": b"Transfer-Encoding\r: chunked",
        "NUL behind the name": b"Transfer-Encoding\0: chunked",
        "byte behind the name": b"Transfer-Encoding\xff: chunked",
        "folded": b"Transfer-Encoding:\r\n chunked",
        "folded with a tab": b"Transfer-Encoding:\r\n\tchunked",
        "folded header before": b"X: y\r\n Transfer-Encoding: chunked",
        "hidden by a line feed": b"X: y\nTransfer-Encoding: chunked",
        "hidden by a carriage return": b"X: y\rTransfer-Encoding: chunked",
        "quoted name": b'"Transfer-Encoding": chunked',
        "no name": b": chunked",
        "no colon": b"Transfer-Encoding chunked",
    }.items():
        yield Shape(f"name: {name}", CL + header + b"\r\n", LAST)
    yield Shape("name: underscore", CL + b"Transfer_Encoding: chunked\r\n", LAST, refused=False)


def lengths() -> Iterator[Shape]:
    """Lengths that are zero for some readers."""
    for name, value in {
        "plus": b"+0",
        "minus": b"-0",
        "hexadecimal": b"0x0",
        "underscore": b"0_0",
        "point": b"0.0",
        "exponent": b"0e0",
        "two numbers": b"0 0",
        "number and text": b"0x",
        "semicolon": b"0;",
        "comma": b"0,",
        "empty": b"",
        "text": b"zero",
        "full width": "\uff10".encode(),
        "superscript": "\u2070".encode(),
        "arabic": "\u0660".encode(),
        "NUL": b"0\0",
        "vertical tab": b"\x0b0",
        "carriage return": b"0\r",
        "too large": b"18446744073709551616",
        "negative": b"-1",
        "very long": b"0" * 5000 + b"1",
    }.items():
        yield Shape(f"length: {name}", b"Content-Length: " + value + b"\r\n")
    yield Shape("length: space before the colon", b"Content-Length : 0\r\n")
    yield Shape("length: folded", b"Content-Length:\r\n 0\r\n")


def chunks() -> Iterator[Shape]:
    """Ends of chunks that some readers see where others do not."""
    for name, body in {
        "hexadecimal prefix": b"0x0\r\n\r\n",
        "plus": b"+0\r\n\r\n",
        "minus": b"-0\r\n\r\n",
        "underscore": b"0_0\r\n\r\n",
        "space before": b" 0\r\n\r\n",
        "tab before": b"\t0\r\n\r\n",
        "empty size": b"\r\n\r\n",
        "extension alone": b";x\r\n\r\n",
        "no hexadecimal": b"g\r\n\r\n",
        "full width": "\uff10\r\n\r\n".encode(),
        "line feeds alone": b"0\n\n",
        "line feed behind the size": b"0\n\r\n",
        "carriage return alone": b"0\r\r\n\r\n",
        "line feed in an extension": b"0;x\n\r\n",
        "carriage return in an extension": b"0;x\ry\r\n\r\n",
        "size that overflows 64 bits": b"10000000000000000\r\n" + LAST,
        "size that overflows to nothing": b"100000000000000000000000000000000\r\n\r\n",
        "end of data missing": b"1\r\na0\r\n\r\n",
        "data longer than its size": b"1\r\nabc\r\n0\r\n\r\n",
        "line feed behind the data": b"1\r\na\n0\r\n\r\n",
        "something else behind the data": b"1\r\naXX0\r\n\r\n",
        "line feeds behind a trailer": b"0\r\nx: y\n\n",
        "very long size": b"0" * 100_000 + b"\r\n\r\n",
    }.items():
        yield Shape(f"chunk: {name}", TE, body)


def lines() -> Iterator[Shape]:
    """Heads that some readers end elsewhere, or take for another version."""
    zero = b"Content-Length: 0\r\n"
    yield Shape("line: line feed alone", CL, line=b"PUT /user/sync HTTP/1.1\n")
    yield Shape("line: line feed alone behind a header", b"X: y\n" + CL)
    yield Shape("line: carriage return alone", CL, line=b"PUT /user/sync HTTP/1.1\r")
    yield Shape("line: no version", CL, line=b"PUT /user/sync\r\n")
    yield Shape("line: version 1.2", CL, line=b"PUT /user/sync HTTP/1.2\r\n", refused=False)
    yield Shape("line: version 2", CL, line=b"PUT /user/sync HTTP/2.0\r\n")
    yield Shape("line: lower case", CL, line=b"PUT /user/sync http/1.1\r\n")
    yield Shape("line: chunked in version 1.0", TE, LAST, line=b"PUT /user/sync HTTP/1.0\r\n")
    yield Shape("line: tabs", CL, line=b"PUT\t/user/sync\tHTTP/1.1\r\n")
    yield Shape("line: three spaces", CL, line=b"PUT  /user/sync  HTTP/1.1\r\n")
    yield Shape("line: space behind", CL, line=b"PUT /user/sync HTTP/1.1 \r\n")
    yield Shape("line: method with a line feed", zero, line=b"GET /info\nPUT /user/sync HTTP/1.1\r\n")
    yield Shape("line: NUL", zero, line=b"PUT /user\0/sync HTTP/1.1\r\n")
    yield Shape("line: GET with a length", CL, line=b"GET /info HTTP/1.1\r\n", refused=False)
    yield Shape("line: upgrade to h2c", CL + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n", refused=False)
    yield Shape("line: preface of HTTP/2", CL, line=b"PRI * HTTP/2.0\r\n")
    yield Shape("line: expectation", CL + b"Expect: 100-continue\r\n", refused=False)
    yield Shape("line: odd expectation", CL + b"Expect: 200-ok\r\n", refused=False)


SHAPES = [*framings(), *codings(), *names(), *lengths(), *chunks(), *lines()]

PARSERS = ["python", *(["fast"] if FAST_PARSER_INSTALLED else [])]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PARSERS)
async def whole_stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """One worker with each parser."""
    async with Stage(workers=1, env={"HTTP_PARSER": request.param}) as stage:
        yield stage


def second_request(panel: PanelClient, name: str) -> bytes:
    """A request that would be a change by itself."""
    body = pb.User(email=name, inbounds=["VLESS"]).SerializeToString()
    return panel.head("PUT", "/user/sync", {"Content-Length": str(len(body))}) + body


async def answers_to(panel: PanelClient, data: bytes, *, enough: int = 10) -> list[int]:
    """The statuses that come for these bytes, until the connection ends or so many are there."""
    connection = await panel.connect()
    statuses: list[int] = []
    try:
        with contextlib.suppress(OSError, NoAnswerError):
            connection.send(data)
            while len(statuses) < enough:
                statuses.append((await read_final(connection)).status)
    finally:
        await connection.close()
    return statuses


async def read_final(connection: Connection) -> Response:
    """The next answer that is none in between."""
    while (answer := await connection.read_response(END_SECONDS)).status == 100:
        pass
    return answer


def bytes_of(panel: PanelClient, shape: Shape) -> bytes:
    usual = panel.head("PUT", "/", {}).partition(b"\r\n")[2].removesuffix(b"\r\n")
    behind = shape.body + second_request(panel, shape.name)
    return shape.line + usual + shape.lines.replace(b"{n}", str(len(behind)).encode()) + b"\r\n" + behind


async def first_answer(panel: PanelClient, shape: Shape) -> list[int]:
    """The first answer to a shape, and that to a question behind it all where the connection goes on."""
    connection = await panel.connect()
    statuses: list[int] = []
    try:
        connection.send(bytes_of(panel, shape))
        statuses.append((await read_final(connection)).status)
        connection.send(panel.head("GET", "/info", {}))
        statuses.append((await read_final(connection)).status)
    except (OSError, NoAnswerError):
        pass
    finally:
        await connection.close()
    return statuses


async def test_no_request_hides_in_another_one(stage: Stage, panel: PanelClient) -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES) >= 69
    some = asyncio.Semaphore(20)

    async def told(shape: Shape) -> tuple[Shape, list[int]]:
        async with some:
            return shape, await first_answer(panel, shape)

    found = await asyncio.gather(*(told(shape) for shape in SHAPES))
    silent = [shape.name for shape, statuses in found if not statuses]
    taken = [shape.name for shape, statuses in found if shape.refused and statuses[:1] == [200]]
    failed = {shape.name: statuses for shape, statuses in found if any(s >= 500 and s != 501 for s in statuses)}
    hidden = [pb.User.FromString(command.body).email for command in stage.supervisor.of_kind(Kind.SYNC_USER)]
    assert (silent, taken, failed, hidden) == ([], [], {}, [])
    assert "Traceback" not in stage.output
    assert (await panel.info()).started


async def test_what_comes_behind_an_error_is_answered_in_its_turn_or_not_at_all(
    stage: Stage, panel: PanelClient
) -> None:
    unreadable = panel.head("PUT", "/user/sync", {"Content-Length": "3"}) + b"\xff\xff\xff"
    unknown = panel.head("GET", "/nowhere", {})
    assert await answers_to(panel, unreadable + unknown + second_request(panel, "third"), enough=3) == [400, 404, 200]
    async with stage.panel(api_key="") as stranger:
        body = second_request(panel, "behind a stranger")
        refused = stranger.head("PUT", "/user/sync", {"Content-Length": str(len(body))})
        assert await answers_to(panel, refused + body + second_request(panel, "never")) == [401]
    too_large = panel.head("PUT", "/user/sync", {"Content-Length": str(2 * MIB)})
    assert await answers_to(panel, too_large + second_request(panel, "inside")) == [413]
    told = [pb.User.FromString(command.body).email for command in stage.supervisor.of_kind(Kind.SYNC_USER)]
    assert told == ["third"]
