"""HTTP/2 as no sane client speaks it: frames as they are, over TLS, and what the other side said to them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter

from pgnode.xray.transport import frames as h2
from tests.support.polling import eventually

#: A call that is opened by these, and has sent nothing of its message yet; for the panel's probe.
PROBE = "/service.NodeService/GetBackendStats"

#: A gRPC message without content.
EMPTY_MESSAGE = bytes(5)


def header_block(*fields: tuple[str, str]) -> bytes:
    """Encode header fields so that nothing has to be remembered: the block may be sent any number of times."""

    def text(value: str) -> bytes:
        data = value.encode()
        assert len(data) < 127
        return bytes([len(data)]) + data

    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def call_block(key: str | None, path: str = PROBE) -> bytes:
    """The headers of a call; without a key for None."""
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "node"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    return header_block(*fields, *([("x-api-key", key)] if key is not None else []))


def reset(stream_id: int) -> bytes:
    """Take a call back."""
    return h2.frame(h2.RST_STREAM, 0, stream_id, h2.U32.pack(h2.CANCEL))


class HostileConnection:
    """One connection. It answers SETTINGS and PING as a polite client does, and counts what it gets.

    ``settings`` are told to the server at the beginning.
    """

    def __init__(self, port: int, settings: dict[int, int] | None = None) -> None:
        self._port = port
        self._settings = settings or {}
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None] | None = None
        #: Frames that came, by kind.
        self.got: Counter[int] = Counter()
        #: What the last GOAWAY said.
        self.goaway = b""
        self.greeted = asyncio.Event()
        self.next_stream = 1

    async def __aenter__(self) -> HostileConnection:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        async with asyncio.timeout(60):
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=context)
            self._writer.write(h2.PREFACE + h2.settings_frame(self._settings))
            self._reading = asyncio.create_task(self._read())
            await self.greeted.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    @property
    def ended(self) -> bool:
        """Whether the server has ended the connection, or said that it will take nothing more."""
        return self._reading is None or self._reading.done() or bool(self.goaway)

    async def wait_for(self, kind: int, count: int) -> None:
        """Wait until so many frames of a kind have come."""
        await eventually(lambda: self.got[kind] >= count, f"{count} frames of kind {kind}")

    async def send(self, data: bytes) -> None:
        """Send bytes; what the server does not take is lost with the connection, whose end is not waited for."""
        assert self._reading is not None
        self._writer.write(data)
        draining = asyncio.ensure_future(self._writer.drain())
        await asyncio.wait([draining, self._reading], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            draining.cancel()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await draining

    def streams(self, count: int) -> list[int]:
        """Return numbers of streams that were not used yet."""
        first = self.next_stream
        self.next_stream += 2 * count
        return list(range(first, self.next_stream, 2))

    async def _read(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                high, low, kind, flags, _ = h2.HEAD.unpack(await self._reader.readexactly(h2.HEAD.size))
                payload = await self._reader.readexactly(high << 16 | low)
                self.got[kind] += 1
                if kind == h2.SETTINGS and not flags & h2.ACK:
                    self._writer.write(h2.frame(h2.SETTINGS, h2.ACK, 0))
                    self.greeted.set()
                elif kind == h2.PING and not flags & h2.ACK:
                    self._writer.write(h2.frame(h2.PING, h2.ACK, 0, payload))
                elif kind == h2.GOAWAY:
                    self.goaway = payload
                    # Nothing that is sent from here on is taken.
                    self._writer.transport.abort()
