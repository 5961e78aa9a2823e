"""One connection to a node: requests and answers, whole or in pieces, and an open log stream.

Also the way to send what no sane client sends: bytes go out as they are given.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

#: Seconds that an orderly end of a connection may take.
CLOSE_SECONDS = 1.0


class NoAnswerError(Exception):
    """The connection ended, or the time was up, before a whole answer had come."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. Names of ``headers`` are in lower case; a repeated header has its last value."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the connection cannot be used again."""
        return self.headers.get("connection", "").lower() == "close"


class Connection:
    """One connection to the node, over TLS where it was opened so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.used_at_seconds = 0.0

    @property
    def alpn(self) -> str | None:
        """The protocol the node negotiated; None is what the panel needs."""
        tls: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return tls.selected_alpn_protocol()

    @property
    def source_port(self) -> int:
        """The port it comes from."""
        return int(self._writer.get_extra_info("sockname")[1])

    @property
    def ended(self) -> bool:
        """Whether the node has ended the connection."""
        return self._reader.at_eof() or self._writer.is_closing()

    def send(self, data: bytes) -> None:
        """Queue bytes as they are."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        await self._writer.drain()

    def end_input(self) -> None:
        """Break the connection off: nothing more will be sent."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except TimeoutError:
            # The node reads nothing more of what was still to be sent.
            self._writer.transport.abort()
        except OSError:
            pass

    async def wait_end(self, timeout_seconds: float) -> bytes:
        """Read until the node ends the connection; returns what came. TimeoutError if it does not end."""
        async with asyncio.timeout(timeout_seconds):
            try:
                return await self._reader.read()
            except OSError:
                return b""

    async def exchange(self, head: bytes, body: Iterable[bytes], timeout_seconds: float) -> Response:
        """Send a request and read its answer; the answer may come before the body has been sent. NoAnswerError."""
        sending = asyncio.ensure_future(self._send_all(head, body))
        try:
            response = await self.read_response(timeout_seconds)
        finally:
            unsent = not sending.done()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
        if unsent or response.closes:
            await self.close()
        self.used_at_seconds = asyncio.get_running_loop().time()
        return response

    async def _send_all(self, head: bytes, body: Iterable[bytes]) -> None:
        self._writer.write(head)
        for block in body:
            self._writer.write(block)
            await self._writer.drain()
        await self._writer.drain()

    async def read_head(self, timeout_seconds: float) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer. NoAnswerError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                head = await self._reader.readuntil(b"\r\n\r\n")
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            raise NoAnswerError(f"no answer from the node: {str(error) or type(error).__name__}") from error
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(first.split(" ", 2)[1]), headers

    async def read_response(self, timeout_seconds: float) -> Response:
        """Return the next answer as a whole. NoAnswerError."""
        status, headers = await self.read_head(timeout_seconds)
        return await self.read_body(status, headers, timeout_seconds)

    async def read_body(self, status: int, headers: Mapping[str, str], timeout_seconds: float) -> Response:
        """Return the rest of the answer whose head has been read. NoAnswerError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                if headers.get("transfer-encoding", "").lower() == "chunked":
                    body = b"".join([part async for part in self.read_chunks()])
                elif "content-length" in headers:
                    body = await self._reader.readexactly(int(headers["content-length"]))
                elif status in (204, 304):
                    body = b""
                else:
                    body = await self._reader.read()
        except (OSError, EOFError, TimeoutError) as error:
            raise NoAnswerError(f"the node's answer was cut short: {str(error) or type(error).__name__}") from error
        return Response(status, headers, body)

    async def read_chunks(self) -> AsyncIterator[bytes]:
        """Return the chunks of a body with ``Transfer-Encoding: chunked``, as they come. EOFError if it is cut."""
        while True:
            size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
            data = await self._reader.readexactly(size + 2)
            if size == 0:
                return
            yield data[:-2]


class LogViewer:
    """An open log stream. ``headers`` came at once; iterate, or ask for one line with a deadline."""

    def __init__(self, connection: Connection, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._chunks = connection.read_chunks()
        self._lines: deque[bytes] = deque()
        self._rest = b""

    async def next_line(self, timeout_seconds: float) -> str:
        """Return the next line without its end, heartbeats (empty lines) left out. TimeoutError, EOFError."""
        async with asyncio.timeout(timeout_seconds):
            while not self._lines:
                try:
                    *lines, self._rest = (self._rest + await anext(self._chunks)).split(b"\n")
                except StopAsyncIteration:
                    raise EOFError("the node ended the log stream") from None
                self._lines.extend(filter(None, lines))
            return self._lines.popleft().decode("utf-8")

    async def wait_for(self, text: str, timeout_seconds: float) -> str:
        """Return the next line that holds ``text``. TimeoutError, EOFError."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                line = await self.next_line(timeout_seconds)
                if text in line:
                    return line

    async def wait_for_match(self, pattern: str, timeout_seconds: float) -> re.Match[str]:
        """Return the match in the next line that has one. TimeoutError, EOFError."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                found = re.search(pattern, await self.next_line(timeout_seconds))
                if found is not None:
                    return found

    async def lines_within(self, seconds: float) -> list[str]:
        """All lines that come within ``seconds``."""
        lines: list[str] = []
        with contextlib.suppress(TimeoutError, EOFError):
            async with asyncio.timeout(seconds):
                while True:
                    lines.append(await self.next_line(seconds))
        return lines
