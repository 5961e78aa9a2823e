"""A hostile caller over gRPC in a process of its own: ``python -m bench.hostile_process ATTACK PORT SECONDS``, the key on stdin.

An empty key is a stranger's. Where the node ends a connection, the next one is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import time
from collections.abc import Callable

import uvloop

from pgnode.os_support.pdeath import die_with_parent
from pgnode.xray.transport import frames as h2
from tests.support.hostile_http2 import EMPTY_MESSAGE, HostileConnection, call_block, reset

#: Frames or calls that are sent at once.
BATCH = 200


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


ATTACKS: dict[str, Callable[[HostileConnection, bytes], bytes]] = {
    attack.__name__: attack for attack in (take_back, call, ping, settings)
}


async def attack(name: str, port: int, seconds: float, key: str) -> None:
    block = call_block(key or None)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with HostileConnection(port) as connection:
                while not connection.ended and time.monotonic() < ends:
                    await connection.send(ATTACKS[name](connection, block))
                    await asyncio.sleep(0)


def main() -> None:
    die_with_parent()
    name, port, seconds = sys.argv[1:]
    uvloop.run(attack(name, int(port), float(seconds), sys.stdin.read().strip()))


if __name__ == "__main__":
    main()
