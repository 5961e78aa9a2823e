"""A real Gunicorn worker in the event loop of a test, on a port of its own, without a master and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, TypeVar

from gunicorn.config import Config
from gunicorn.glogging import Logger

from pgnode.os_support.aio import end_tasks
from pgnode.worker.gunicorn_compat import HttpConnection, HttpWorker, use_connection_class
from tests.support.polling import eventually

WorkerT = TypeVar("WorkerT", bound=HttpWorker)

#: As the node's configuration has it, and quick to end.
SETTINGS: dict[str, Any] = {
    "http_parser": "auto",
    "keepalive": 75,
    "graceful_timeout": 2,
    "asgi_lifespan": "on",
    "asgi_disconnect_grace_period": 1,
    "loglevel": "error",
}


@contextlib.asynccontextmanager
async def serving(worker_class: type[WorkerT], app: Any, **settings: Any) -> AsyncIterator[tuple[WorkerT, int]]:
    """The worker, which serves ``app``, and its port. It is ended as by SIGTERM, unless it has ended by then."""
    config = Config()
    for name, value in (SETTINGS | settings).items():
        config.set(name, value)
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    worker = worker_class(1, os.getppid(), [SimpleNamespace(sock=listener)], None, 15, config, Logger(config))
    worker.loop, worker.asgi = asyncio.get_running_loop(), app
    use_connection_class(worker_class.connection_class)
    serve = asyncio.create_task(worker._serve())
    try:
        await eventually(lambda: worker.servers or serve.done(), "the worker serves")
        yield worker, port
        worker.handle_exit_signal()
        async with asyncio.timeout(30):
            await serve
    finally:
        await end_tasks([serve])
        worker.tmp.close()
        listener.close()


async def lifespan(receive: Any, send: Any) -> None:
    """What an application does when it is called for its life."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def request(body: bytes) -> bytes:
    return b"PUT /x HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Recording(HttpConnection):
    """Writes down which hooks were called."""

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self.calls: list[str] = []
        #: Who may not call.
        self.unwanted = ""
        worker.seen.append(self)

    def opened(self) -> None:
        self.calls.append("opened")
        super().opened()

    def caller_named(self, host: str) -> bool:
        self.calls.append(f"caller_named {host}")
        return super().caller_named(host) and host != self.unwanted

    def request_begun(self) -> None:
        self.calls.append("request_begun")
        super().request_begun()

    def headers_read(self) -> None:
        self.calls.append("headers_read")
        super().headers_read()

    def scope_built(self, scope: dict[str, Any]) -> None:
        self.calls.append(f"scope_built {scope['path']}")
        scope["added"] = self
        super().scope_built(scope)

    def stalled(self) -> None:
        self.calls.append("stalled")
        super().stalled()

    def flows(self) -> None:
        self.calls.append("flows")
        super().flows()

    def closed(self) -> None:
        self.calls.append("closed")
        super().closed()

    def error_content(self, status: int, message: str) -> tuple[str, bytes]:
        self.calls.append(f"error_content {status}")
        return "text/x-test", b"%d!" % status


class RecordingWorker(HttpWorker):
    connection_class = Recording

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[Recording] = []
        self.ended: list[tuple[bool, int]] = []

    async def about_to_end(self) -> None:
        self.ended.append((any(server.is_serving() for server in self.servers), len(self.connections)))
        for connection in list(self.connections):
            if connection.is_idle:
                connection.close()
        await super().about_to_end()


class App:
    """Answers with what it got; /large with a lot, /wait when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.scopes: list[Any] = []
        self.gone = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                self.gone += 1
                return
            body, more = body + event["body"], event["more_body"]
        if scope["path"] == "/wait":
            await self.go_on.wait()
        answer = bytes(50_000_000) if scope["path"] == "/large" else body or b"nothing"
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for at in range(0, len(answer), 1_000_000):
            more = at + 1_000_000 < len(answer)
            await send({"type": "http.response.body", "body": answer[at : at + 1_000_000], "more_body": more})


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        return int(head.split()[1]), await reader.readexactly(length)
