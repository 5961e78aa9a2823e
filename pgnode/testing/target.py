"""What users of the demo and the tests talk to through the node: a local TCP server that sinks, sends and echoes bytes.

A connection begins with a request of 32 bytes (:func:`request`): a mark, a mode, how many bytes the caller sends in
all (the request included) and how many it wants back. Counts are exact, so that counters can be held against them.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
import struct

_REQUEST = struct.Struct(">8sQQQ")
_MARK = b"pgtarget"

#: Length of the request that begins every connection; the smallest upload there is.
REQUEST_BYTES = _REQUEST.size

#: Bytes read or sent at once.
BLOCK_BYTES = 64 * 1024

#: A connection on which nothing moves for so long is given up; nothing in the demo or the tests is silent for longer.
IDLE_TIMEOUT_SECONDS = 120.0


class Mode(enum.IntEnum):
    """What the target does with a connection."""

    MOVE = 0  #: read all the upload, then send the download, then close
    ECHO = 1  #: send back every byte after the request until the caller ends


def request(mode: Mode, upload_bytes: int, download_bytes: int) -> bytes:
    """Return the 32 bytes that begin a connection. ``upload_bytes`` counts them too and is at least 32 for ``Mode.MOVE``."""
    if mode is Mode.MOVE and upload_bytes < REQUEST_BYTES:
        raise ValueError(f"an upload has {REQUEST_BYTES} bytes at least, not {upload_bytes}: the request is part of it")
    return _REQUEST.pack(_MARK, mode, upload_bytes, download_bytes)


class Target:
    """The server. Use as ``async with Target() as target:`` and connect to ``target.host``, ``target.port``.

    With ``tls`` it speaks TLS, as most of what users reach does.
    """

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Target:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                await self._answer(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(IDLE_TIMEOUT_SECONDS):
            mark, mode, upload_bytes, download_bytes = _REQUEST.unpack(await reader.readexactly(REQUEST_BYTES))
        if mark != _MARK:
            return
        if mode == Mode.ECHO:
            await _echo(reader, writer)
        else:
            await _sink(reader, upload_bytes - REQUEST_BYTES)
            await _send(writer, download_bytes)


async def _sink(reader: asyncio.StreamReader, count: int) -> None:
    while count > 0:
        async with asyncio.timeout(IDLE_TIMEOUT_SECONDS):
            block = await reader.read(min(BLOCK_BYTES, count))
        if not block:
            raise EOFError
        count -= len(block)


async def _send(writer: asyncio.StreamWriter, count: int) -> None:
    block = bytes(BLOCK_BYTES)
    while count > 0:
        writer.write(block[:count])
        count -= min(count, BLOCK_BYTES)
        async with asyncio.timeout(IDLE_TIMEOUT_SECONDS):
            await writer.drain()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        async with asyncio.timeout(IDLE_TIMEOUT_SECONDS):
            block = await reader.read(BLOCK_BYTES)
            if not block:
                return
            writer.write(block)
            await writer.drain()
