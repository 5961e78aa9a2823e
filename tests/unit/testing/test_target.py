"""The target sinks, sends and echoes exactly what a connection asks for."""

from __future__ import annotations

import asyncio

import pytest

from pgnode.testing.target import BLOCK_BYTES, REQUEST_BYTES, Mode, Target, request


async def test_a_transfer_is_exact() -> None:
    up, down = BLOCK_BYTES + 5, 2 * BLOCK_BYTES + 7
    async with Target() as target:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(request(Mode.MOVE, up, down) + bytes(up - REQUEST_BYTES))
        assert len(await reader.read(-1)) == down
        writer.close()
        await writer.wait_closed()


async def test_an_echo_goes_on_until_the_caller_ends() -> None:
    async with Target() as target:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(request(Mode.ECHO, REQUEST_BYTES, 0))
        for block in (b"one", b"two"):
            writer.write(block)
            assert await reader.readexactly(3) == block
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("sent", [bytes(REQUEST_BYTES), b"short", request(Mode.MOVE, 100, 5) + b"too little"])
async def test_who_asks_for_nothing_gets_nothing(sent: bytes) -> None:
    async with Target() as target:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_connections_end_with_it() -> None:
    async with Target() as target:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(request(Mode.ECHO, REQUEST_BYTES, 0) + b"here")
        assert await reader.readexactly(4) == b"here"
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.transport.abort()


def test_an_upload_holds_its_request() -> None:
    with pytest.raises(ValueError, match="an upload has 32 bytes at least"):
        request(Mode.MOVE, 31, 0)
