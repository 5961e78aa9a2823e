"""What the observatory of a test's config probes."""

from __future__ import annotations

import asyncio


async def answer_probe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one probe: no content. Serves ``asyncio.start_server``."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()
