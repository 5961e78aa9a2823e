"""A way to a server over TCP that can become slow, or fall silent without closing a connection, as a cut cable does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pgnode.os_support.aio import end_tasks
from pgnode.testing.ports import free_port


class TcpProxy:
    """Passes bytes on between callers and a server.

    Attributes:
        port: Where callers connect.
        delay_seconds: For so long each piece is held, either way.
        dropped: Bytes that were thrown away.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = free_port()
        self.delay_seconds = 0.0
        self.dropped = 0
        self._silent = False
        #: Connections that fell silent stay so.
        self._dead: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Whatever is sent from now on is lost, either way; nobody is told."""
        self._silent = True
        self._dead |= self._open

    def mend(self) -> None:
        """New connections go through again; those that were cut never do."""
        self._silent = False

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._take, "127.0.0.1", self.port)

    async def close(self) -> None:
        await end_tasks(self._tasks)
        for writer in self._open:
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        if self._silent:
            self._dead.add(writer)
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._open.add(there)
        for one in (self._pass_on(reader, there, writer), self._pass_on(there_reader, writer, writer)):
            task = asyncio.create_task(one)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)  # noqa: TID251 - this is what it is for
                if caller in self._dead:
                    self.dropped += len(data)
                else:
                    writer.write(data)
        if caller not in self._dead:
            writer.close()


@contextlib.asynccontextmanager
async def tcp_proxy(port: int) -> AsyncIterator[TcpProxy]:
    """A proxy in front of a server on this machine."""
    proxy = TcpProxy(port)
    server = await proxy.serve()
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
