"""A hostile caller in a process of its own: ``python -m bench.hostile_process ATTACK PORT SECONDS``, the key on stdin.

An empty key is a stranger's. Where the node ends a connection, the next one is made. When it is told to end (SIGTERM), it writes
on stdout how many connections it made and how many bytes it sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

import uvloop
from grpc import aio

from pgnode.os_support.pdeath import die_with_parent
from pgnode.wire import service_pb2 as pb
from pgnode.xray.transport import frames as h2
from tests.support.grpc_node import GrpcNode
from tests.support.hostile_http2 import EMPTY_MESSAGE, HostileConnection, call_block, header_block, reset

#: Frames or calls that are sent at once.
BATCH = 200

#: Connections of an attack that makes many.
AT_ONCE = 16

#: Callers that hold the key and flood, each with a connection of its own, and what a large message of theirs has.
HOLDERS = 4
LARGE_BYTES = 32 * 1024 * 1024

#: Callers who hardly take what they asked for.
SLOW_READERS = 50
ALL_USERS = pb.StatRequest(type=pb.UsersStat)


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

    # With the key

    async def many_messages(self) -> None:
        """Streams of small messages without end, each a user who is to be removed and was never there."""
        email = itertools.count()

        async def messages() -> AsyncIterator[bytes]:
            while True:
                message = pb.User(email=f"nobody{next(email)}@bench").SerializeToString()
                self.bytes += len(message)
                yield message

        async def again(caller: GrpcNode) -> None:
            while True:
                with contextlib.suppress(aio.AioRpcError):
                    await caller.stream("SyncUser", messages(), timeout_seconds=None)
                await asyncio.sleep(0)

        await self._by_callers(again)

    async def large_messages(self) -> None:
        """Messages of 32 MiB, again and again, that are refused when they are there."""
        user = pb.User(email="x" * LARGE_BYTES, inbounds=["VLESS"])
        message = pb.Users(users=[user]).SerializeToString()

        async def again(caller: GrpcNode) -> None:
            while True:
                self.bytes += len(message)
                with contextlib.suppress(aio.AioRpcError):
                    await caller.call("SyncUsers", message, timeout_seconds=None)
                await asyncio.sleep(0)

        await self._by_callers(again)

    async def _by_callers(self, work: Callable[[GrpcNode], Awaitable[None]]) -> None:
        certificate = (await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", self._port))).encode()
        async with contextlib.AsyncExitStack() as stack:
            address = f"127.0.0.1:{self._port}"
            callers = [
                await stack.enter_async_context(GrpcNode(address, self._key, certificate)) for _ in range(HOLDERS)
            ]
            self.connections += HOLDERS
            await asyncio.gather(*(work(one) for one in callers))

    async def slow_readers(self) -> None:
        """Ask for all users' statistics over REST on 50 connections, and take a byte a second of each answer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        body = ALL_USERS.SerializeToString()
        head = (
            f"GET /stats HTTP/1.1\r\nHost: n\r\nx-api-key: {self._key}\r\n"
            f"Content-Type: application/x-protobuf\r\nContent-Length: {len(body)}\r\n\r\n"
        )

        async def one() -> None:
            while True:
                with contextlib.suppress(OSError, ssl.SSLError):
                    connection = socket.socket()
                    # What the kernel takes is taken at once.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                    connection.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
                    reader, writer = await asyncio.open_connection(
                        sock=connection, ssl=context, server_hostname="", limit=1
                    )
                    self.connections += 1
                    writer.write(head.encode() + body)
                    while await reader.read(1):
                        self.bytes += 1
                        await asyncio.sleep(1)
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(SLOW_READERS)))

    async def slow_streams(self) -> None:
        """The same over gRPC: streams whose window is a byte, and grows by one in a second."""
        message = ALL_USERS.SerializeToString()
        block = call_block(self._key, "/service.NodeService/GetStats")

        async def one() -> None:
            while True:
                with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
                    async with HostileConnection(self._port, {h2.SETTINGS_INITIAL_WINDOW_SIZE: 1}) as connection:
                        self.connections += 1
                        (number,) = connection.streams(1)
                        data = b"\0" + h2.U32.pack(len(message)) + message
                        await connection.send(
                            h2.frame(h2.HEADERS, h2.END_HEADERS, number, block)
                            + h2.frame(h2.DATA, h2.END_STREAM, number, data)
                        )
                        while not connection.ended:
                            await asyncio.sleep(1)
                            self.bytes += 1
                            await connection.send(h2.frame(h2.WINDOW_UPDATE, 0, number, h2.U32.pack(1)))
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(SLOW_READERS)))


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
