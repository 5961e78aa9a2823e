"""Metrics and health over plain HTTP from the supervisor itself, on METRICS_PORT: also while no worker answers.

For an agent on this machine, which needs no key. It understands GET alone, one request a connection.
"""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: Bytes of a request at most.
REQUEST_BYTES_MAX: Final = 8 * 1024

#: Seconds that a request may take to arrive, its answer to be made, and to be taken: each.
DEADLINE_SECONDS: Final = 5.0

#: Connections at once; further ones are closed.
CONNECTIONS_MAX: Final = 32

#: Seconds until a port that is in use is tried again.
RETRY_SECONDS: Final = 5.0

JSON_TYPE: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    media_type: str
    body: bytes


#: Takes an Accept header.
Page = Callable[[str], Awaitable[Answer]]


def refusal(status: int, text: str) -> Answer:
    """Return the answer to a request that is refused.

    Args:
        status: The HTTP status.
        text: Why, and what to do.

    Returns:
        The answer.
    """
    return Answer(status, JSON_TYPE, json.dumps({"error": text}).encode())


class FiguresServer:
    """Belongs to the supervisor's loop.

    Args:
        host: The address to listen on.
        port: The port.
        pages: What is answered, by path.
        deadline_seconds: Seconds for each step of a request.
        connections_max: Connections at once.
        retry_seconds: Seconds until a port that is in use is tried again.
    """

    def __init__(
        self,
        host: str,
        port: int,
        pages: Mapping[str, Page],
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        connections_max: int = CONNECTIONS_MAX,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self._deadline_seconds = deadline_seconds
        self._connections_max = connections_max
        self._retry_seconds = retry_seconds
        self._connections = 0
        #: The port that it listens on; 0 while it does not.
        self.port = 0

    def __repr__(self) -> str:
        return f"FiguresServer({self._host}:{self._port}, {self._connections} connections)"

    async def run(self) -> None:
        """Serve until cancelled; a port that cannot be had is tried again and again."""
        told = False
        while True:
            try:
                server = await asyncio.start_server(self._serve, self._host, self._port, limit=REQUEST_BYTES_MAX)
            except OSError as error:
                if not told:
                    told = True
                    log.error(
                        "METRICS_PORT cannot be listened on, trying again; free it, or set another one",
                        host=self._host,
                        port=self._port,
                        error=error.strerror or str(error),
                    )
                await asyncio.sleep(self._retry_seconds)
                continue
            self.port = server.sockets[0].getsockname()[1]
            log.info("metrics are served", host=self._host, port=self.port)
            try:
                async with server:
                    await server.serve_forever()
            finally:
                self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= self._connections_max:
                await self._answer_one(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the caller has gone, or is too slow
        finally:
            self._connections -= 1
            writer.close()
            try:
                async with asyncio.timeout(self._deadline_seconds):
                    await writer.wait_closed()
            except (OSError, TimeoutError):
                # Its caller takes nothing.
                writer.transport.abort()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(self._deadline_seconds):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                head = b""
        answer = (
            await self._answer(head) if head else refusal(431, f"the request is larger than {REQUEST_BYTES_MAX} bytes")
        )
        writer.write(_head(answer) + answer.body)
        async with asyncio.timeout(self._deadline_seconds):
            await writer.drain()

    async def _answer(self, head: bytes) -> Answer:
        lines = head.decode("latin-1").split("\r\n")
        method, _, rest = lines[0].partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if not rest.endswith((" HTTP/1.1", " HTTP/1.0")):
            return refusal(400, "not valid HTTP/1.1")
        page = self._pages.get(path)
        if page is None:
            return refusal(404, f"there are {', '.join(self._pages)}")
        if method != "GET":
            return refusal(405, "GET alone is understood here")
        accept = ",".join(
            value for name, _, value in (line.partition(":") for line in lines[1:]) if name.lower() == "accept"
        )
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await page(accept)
        except TimeoutError:
            return refusal(504, "the figures were not gathered in time, try again")
        except Exception:
            log.exception("metrics not told", path=path)
            return refusal(500, "internal error: see the node's log")


def _head(answer: Answer) -> bytes:
    phrase = http.HTTPStatus(answer.status).phrase
    allow = "Allow: GET\r\n" if answer.status == http.HTTPStatus.METHOD_NOT_ALLOWED else ""
    return (
        f"HTTP/1.1 {answer.status} {phrase}\r\nContent-Type: {answer.media_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n{allow}Connection: close\r\n\r\n"
    ).encode()
