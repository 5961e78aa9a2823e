"""The log as an endless answer: plain lines, or Server-Sent Events or JSON for callers that ask for them.

Plain: each line as it is, ended by a line feed, an empty line as heartbeat. The panel shows lines as they come, so they
carry no ``data:``. A caller whose Accept header names ``text/event-stream`` gets real events (WHATWG HTML, section
9.2): the entry's id and the line, and a comment as heartbeat. Either is ``Content-Type: text/event-stream``. One that
asks for JSON gets a Log message a line, and an empty line as heartbeat, as ``application/x-ndjson``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from pgnode.api.rest.gate import Receive
from pgnode.api.service.node_service import LogEntry
from pgnode.os_support.aio import end_tasks
from pgnode.wire import service_pb2 as pb
from pgnode.wire.json_form import line_of

#: Key of the scope that tells the server to leave a caller alone who takes nothing: lines that find no room are dropped, and the
#: caller is told how many.
UNHURRIED = "pgnode.unhurried"

EVENT_STREAM = "text/event-stream"
JSON_LINES = "application/x-ndjson"


def plain(entry: LogEntry) -> bytes:
    """``entry`` as a plain line. Bytes that are no UTF-8 are replaced: one of them would end the panel's viewer."""
    return b"\n" if entry is None else _clean(entry[1]) + b"\n"


def event(entry: LogEntry) -> bytes:
    """``entry`` as one Server-Sent Event."""
    if entry is None:
        return b": \n\n"
    # A carriage return within a line would end the data field, and lose what follows it.
    return b"id: " + entry[0].encode() + b"\ndata: " + _clean(entry[1]).replace(b"\r", b" ") + b"\n\n"


def json_line(entry: LogEntry) -> bytes:
    """``entry`` as a Log message in JSON, on a line of its own."""
    return b"\n" if entry is None else line_of(pb.Log(detail=entry[1].decode(errors="replace")))


def wants_events(accept: str) -> bool:
    """Whether an Accept header asks for Server-Sent Events by name; ``*/*`` does not."""
    return any(part.partition(";")[0].strip().lower() == EVENT_STREAM for part in accept.split(","))


class LogStream:
    """The body of an answer: begins with a heartbeat, so that headers go out at once, and ends with its caller.

    For Falcon's ``resp.stream``, which iterates over it and then calls :meth:`close`.
    """

    def __init__(
        self,
        source: AbstractAsyncContextManager[AsyncIterator[LogEntry]],
        receive: Receive,
        encode: Callable[[LogEntry], bytes],
    ) -> None:
        self._stream = _stream(source, receive, encode)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream

    async def close(self) -> None:
        await self._stream.aclose()


async def _stream(
    source: AbstractAsyncContextManager[AsyncIterator[LogEntry]],
    receive: Receive,
    encode: Callable[[LogEntry], bytes],
) -> AsyncGenerator[bytes, None]:
    yield encode(None)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        async with source as entries:
            while True:
                # Sending tells nothing about a caller that has gone: only receive does, also while no line comes.
                line = asyncio.create_task(_next(entries))
                try:
                    await asyncio.wait((gone, line), return_when=asyncio.FIRST_COMPLETED)
                    if gone.done():
                        return
                    entry = line.result()
                except StopAsyncIteration:
                    return
                finally:
                    if not line.done():
                        await end_tasks([line])
                yield encode(entry)
    finally:
        await end_tasks([gone])


async def _next(entries: AsyncIterator[LogEntry]) -> LogEntry:
    return await anext(entries)


async def _disconnected(receive: Receive) -> None:
    """Return when the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _clean(line: bytes) -> bytes:
    return line.decode(errors="replace").encode()
