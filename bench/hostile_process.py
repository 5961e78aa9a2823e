"""A hostile caller in a process of its own: ``python -m bench.hostile_process ATTACK PORT SECONDS``, the key on stdin.

An empty key is a stranger's. Where the node ends a connection, the next one is made. When it is told to end (SIGTERM), it writes
on stdout how many connections it made and how many bytes it sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import uvloop

from pgnode.os_support.pdeath import die_with_parent
from pgnode.xray.transport import frames as h2
from tests.support.hostile_http2 import EMPTY_MESSAGE, HostileConnection, call_block, header_block, reset

#: Frames or calls that are sent at once.
BATCH = 200

#: Connections of an attack that makes many.
AT_ONCE = 16


def take_back(connection: HostileConnection, block: bytes) -> bytes:
    """Calls that are taken back at once."""
    return b"".join(
        h2.frame(h2.HEADERS, h2.END_HEADERS, number, block) + reset(number) for number in connection.streams(BATCH)
    )


def call(connection: HostileConnection, block: bytes) -> bytes:
    """Whole calls, far more than may be open."""
    return b"".join(
        h2.frame(h2.HEADERS, h2.END_HEADERS, number, block) + h2.frame(h2.DATA, h2.END_STREAM, number, EMPTY_MESSAGE)
        for number in connection.streams(BATCH)
    )


def ping(_connection: HostileConnection, _block: bytes) -> bytes:
    """PING frames."""
    return h2.frame(h2.PING, 0, 0, b"12345678") * BATCH


def settings(_connection: HostileConnection, _block: bytes) -> bytes:
    """SETTINGS frames."""
    return h2.settings_frame({h2.SETTINGS_INITIAL_WINDOW_SIZE: h2.DEFAULT_WINDOW}) * BATCH


def continuation(connection: HostileConnection, block: bytes) -> bytes:
    """The headers of one call, which never end."""
    begun = b""
    if connection.next_stream == 1:
        begun = h2.frame(h2.HEADERS, 0, connection.streams(1)[0], block)
    return begun + h2.frame(h2.CONTINUATION, 0, 1, header_block(("x-a", "b" * 100)) * 20) * BATCH


#: What is sent on one HTTP/2 connection, again and again.
FRAMES: dict[str, Callable[[HostileConnection, bytes], bytes]] = {
    attack.__name__: attack for attack in (take_back, call, ping, settings, continuation)
}


class Attacker:
    """Attacks until it is cancelled.

    Args:
        port: The node's port.
        key: Its key; empty for a stranger.
    """

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self.connections = 0
        self.bytes = 0

    async def frames(self, name: str) -> None:
        """Send frames on one connection."""
        block = call_block(self._key or None)
        while True:
            with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
                async with HostileConnection(self._port) as connection:
                    self.connections += 1
                    while not connection.ended:
                        data = FRAMES[name](connection, block)
                        await connection.send(data)
                        self.bytes += len(data)
                        await asyncio.sleep(0)

    async def handshakes(self) -> None:
        """Connect, shake hands and go, on many connections at once."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])

        async def one() -> None:
            while True:
                with contextlib.suppress(OSError, ssl.SSLError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=context)
                    self.connections += 1
                    writer.transport.abort()
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    async def requests(self) -> None:
        """Send requests over REST without the key on many connections, and make the next one at the first answer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        data = b"GET /info HTTP/1.1\r\nHost: n\r\n\r\n" * 50

        async def one() -> None:
            while True:
                with contextlib.suppress(OSError, ssl.SSLError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=context)
                    self.connections += 1
                    try:
                        writer.write(data)
                        self.bytes += len(data)
                        await reader.read(65536)
                    finally:
                        writer.transport.abort()
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))


async def attack(name: str, port: int, seconds: float, key: str) -> None:
    attacker = Attacker(port, key)

    def end() -> NoReturn:
        # As it is now: what is under way is given up.
        made = {"connections": attacker.connections, "bytes": attacker.bytes, "cpu_seconds": time.process_time()}
        os.write(1, json.dumps(made).encode())
        os._exit(0)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await (attacker.frames(name) if name in FRAMES else getattr(attacker, name)())
    end()


def main() -> None:
    die_with_parent()
    name, port, seconds = sys.argv[1:]
    uvloop.run(attack(name, int(port), float(seconds), sys.stdin.read().strip()))


if __name__ == "__main__":
    main()
