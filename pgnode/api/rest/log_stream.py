"""The log as an endless answer: plain lines, or Server-Sent Events or JSON for callers that ask for them.

Plain: each line as it is, ended by a line feed; an empty line is a heartbeat. The panel shows lines as they come, so they
carry no ``data:``. A caller whose Accept header names ``text/event-stream`` gets real events (WHATWG HTML, section
9.2): the entry's id and the line, and a comment as heartbeat. Both are ``Content-Type: text/event-stream``. One that
asks for JSON gets a Log message a line, and an empty line as heartbeat, as ``application/x-ndjson``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Self

from pgnode.api.rest.asgi import Receive
from pgnode.api.rest.negotiation import EVENT_STREAM, JSON_LINES, prefers_events
from pgnode.api.service.ports import LogEntry
from pgnode.os_support.aio import end_tasks
from pgnode.wire import service_pb2 as pb
from pgnode.wire.json_form import line_of

#: Makes bytes of some lines, or of a heartbeat.
EntryEncoder = Callable[[LogEntry], bytes]


def log_format(accept: str, *, as_json: bool) -> tuple[EntryEncoder, str]:
    """Choose the form of a log stream.

    Args:
        accept: The header Accept.
        as_json: Whether it prefers JSON to protobuf.

    Returns:
        What makes bytes of an entry, and the Content-Type.
    """
    if prefers_events(accept):
        return events, EVENT_STREAM
    if as_json:
        return json_lines, JSON_LINES
    return plain, EVENT_STREAM


def plain(entry: LogEntry) -> bytes:
    """Return ``entry`` as plain lines. Bytes that are no UTF-8 are replaced: one of them would end the panel's viewer."""
    return b"\n" if entry is None else _clean(entry[1]) + b"\n"


def events(entry: LogEntry) -> bytes:
    """Return ``entry`` as Server-Sent Events, one a line."""
    if entry is None:
        return b": \n\n"
    # A carriage return within a line would end the data field, and lose what follows it.
    head = b"id: " + entry[0].encode() + b"\ndata: "
    return head + _clean(entry[1]).replace(b"\r", b" ").replace(b"\n", b"\n\n" + head) + b"\n\n"


def json_lines(entry: LogEntry) -> bytes:
    """Return ``entry`` as Log messages in JSON, each on a line of its own."""
    if entry is None:
        return b"\n"
    return b"".join([line_of(pb.Log(detail=text)) for text in entry[1].decode(errors="replace").split("\n")])


class LogStream:
    """The body of an answer: begins with a heartbeat, so that the first byte comes at once, and ends with its caller.

    For Falcon's ``resp.stream``, which iterates over it and then calls :meth:`close`. Made by :meth:`open`.

    Args:
        first: The heartbeat.
        rest: What follows it.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def __repr__(self) -> str:
        return f"LogStream({self._rest!r})"

    @classmethod
    async def open(
        cls,
        source: AbstractAsyncContextManager[AsyncIterator[LogEntry]],
        receive: Receive,
        encode: EntryEncoder,
    ) -> Self:
        """Open the log before the headers are sent, so that the caller gets everything that is logged after them.

        Args:
            source: Opens the log.
            receive: The server's ``receive``, which tells when the caller has gone.
            encode: Makes bytes of an entry.

        Returns:
            The body. One that is dropped instead of closed is closed by the event loop, as every generator that has begun.
        """
        stream = _stream(source, receive, encode)
        return cls(await anext(stream), stream)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await anext(self._rest)

    async def close(self) -> None:
        """Close the log."""
        await self._rest.aclose()


async def _stream(
    source: AbstractAsyncContextManager[AsyncIterator[LogEntry]],
    receive: Receive,
    encode: EntryEncoder,
) -> AsyncGenerator[bytes, None]:
    async with source as entries:
        yield encode(None)
        gone = asyncio.create_task(_disconnected(receive))
        try:
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
