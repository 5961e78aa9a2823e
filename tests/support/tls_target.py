"""A TLS server on loopback for REALITY inbounds to borrow their handshake from."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path


@contextlib.asynccontextmanager
async def tls_target(certificate: Sequence[str], key: Sequence[str], folder: Path) -> AsyncIterator[int]:
    """Serve the certificate (lines of PEM) over TLS 1.3 and yield the port. Connections are closed at once."""
    pem = folder / "target.pem"
    pem.write_text("\n".join([*certificate, *key]) + "\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
