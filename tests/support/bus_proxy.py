"""A way to Redis on which connections die without Redis noticing."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from pgnode.os_support.aio import end_tasks


class BusProxy:
    """Passes bytes on between callers and Redis. Of a connection that is cut Redis keeps its end.

    Attributes:
        url: Address for callers.
        cut_at: Bytes of Redis's at which a connection is cut, once; the caller does not get them.
        cuts: How many were cut so.
        asked: Bytes that callers have sent since the last cut.
    """

    def __init__(self, target: str, folder: Path) -> None:
        self._target = target
        self._path = folder / "proxy.sock"
        self.url = f"unix://{self._path}"
        self.cut_at: bytes | None = None
        self.cuts = 0
        self.asked = b""
        self._callers: set[asyncio.StreamWriter] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._take, self._path)

    def cut_callers(self) -> None:
        """Cut every connection on the callers' side."""
        for caller in self._callers:
            caller.transport.abort()
        self._callers.clear()
        self.asked = b""

    async def close(self) -> None:
        await end_tasks(self._tasks)
        for end in (*self._ends, *self._callers):
            end.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_unix_connection(self._target)
        self._callers.add(writer)
        self._ends.append(redis_writer)
        self._tasks += [
            asyncio.create_task(self._to_redis(reader, redis_writer)),
            asyncio.create_task(self._to_caller(redis_reader, writer)),
        ]

    async def _to_redis(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.asked += data
                writer.write(data)

    async def _to_caller(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.cut_at is not None and self.cut_at in data:
                self.cut_at = None
                self.cuts += 1
                self.cut_callers()
            elif writer in self._callers:
                writer.write(data)


@contextlib.asynccontextmanager
async def bus_proxy(url: str) -> AsyncIterator[BusProxy]:
    """A proxy in front of the Redis at ``url``, which is a unix socket."""
    with tempfile.TemporaryDirectory(prefix="pgn") as folder:
        proxy = BusProxy(url.removeprefix("unix://").partition("?")[0], Path(folder))
        server = await proxy.serve()
        try:
            yield proxy
        finally:
            server.close()
            await proxy.close()
