"""A drain and each kind of inbound that it takes out, with a transfer under way: TLS, REALITY, Vision, mux, local proxies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pgnode.testing.configs import config_tags, make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.ports import free_port
from pgnode.testing.target import BLOCK_BYTES, Mode, Target, request
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import SS2022_METHOD, make_user, ss2022_key
from tests.e2e.conftest import FAST
from tests.support.core_lists import inbound_tags
from tests.support.processes import run_to_end
from tests.support.tls_target import tls_target

VISION = "xtls-rprx-vision"
MUX = "through mux"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Local:
    """A connection through one of the inbounds that have no users."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams

    async def echo(self, data: bytes) -> bool:
        async with asyncio.timeout(60):
            self._writer.write(data)
            await self._writer.drain()
            return await self._reader.readexactly(len(data)) == data

    def close(self) -> None:
        self._writer.close()


async def plainly(_streams: Streams, _target: Target) -> None:
    """The inbound knows the way."""


async def by_socks(streams: Streams, target: Target) -> None:
    reader, writer = streams
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack(">H", target.port))
    assert (await reader.readexactly(10))[1] == 0


async def by_http(streams: Streams, target: Target) -> None:
    reader, writer = streams
    writer.write(f"CONNECT 127.0.0.1:{target.port} HTTP/1.1\r\nHost: target\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")


#: Inbounds without users -> how a connection through them begins.
LOCALS: dict[str, Callable[[Streams, Target], Awaitable[None]]] = {
    "door": plainly,
    "socks": by_socks,
    "mixed": by_socks,
    "http": by_http,
}


def local_inbounds(target: Target) -> list[dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {
        "door": {"address": "127.0.0.1", "port": target.port, "network": "tcp"},
        "socks": {"auth": "noauth"},
        "mixed": {"auth": "noauth"},
        "http": {},
    }
    protocols = {name: "dokodemo-door" if name == "door" else name for name in settings}
    return [
        {"tag": name, "listen": "127.0.0.1", "port": free_port(), "protocol": protocols[name], "settings": of}
        for name, of in settings.items()
    ]


@contextlib.asynccontextmanager
async def local(inbound: dict[str, Any], target: Target) -> AsyncIterator[Local]:
    streams = await asyncio.open_connection("127.0.0.1", inbound["port"])
    connection = Local(streams)
    try:
        async with asyncio.timeout(60):
            await LOCALS[inbound["tag"]](streams, target)
        streams[1].write(request(Mode.ECHO, 0, 0))
        assert await connection.echo(b"before")
        yield connection
    finally:
        connection.close()


def inbounds_with_users(sample: dict[str, dict[str, Any]], tls_port: int) -> list[dict[str, Any]]:
    certificates = sample["VLESS XHTTP"]["streamSettings"]["tlsSettings"]["certificates"]
    tls = {"network": "raw", "security": "tls", "tlsSettings": {"certificates": certificates}}
    websocket = {**tls, "network": "ws", "wsSettings": {"path": "/w"}}
    websocket["tlsSettings"] = {"certificates": certificates, "alpn": ["http/1.1"]}
    reality = dict(sample["VLESS TCP REALITY"]["streamSettings"])
    reality["realitySettings"] = reality["realitySettings"] | {"target": f"127.0.0.1:{tls_port}"}
    return [
        make_inbound("VLESS", "vless"),
        make_inbound("VLESS TLS", "vless", stream=tls),
        make_inbound("VLESS TLS vision", "vless", stream=tls, flow=VISION),
        make_inbound("VLESS REALITY vision", "vless", stream=reality, flow=VISION),
        make_inbound("VLESS WebSocket TLS", "vless", stream=websocket),
        make_inbound("Trojan TLS", "trojan", stream=tls),
        make_inbound("Shadowsocks", "shadowsocks", network="tcp"),
        make_inbound(
            "Shadowsocks-2022", "shadowsocks", network="tcp", method=SS2022_METHOD, password=ss2022_key(b"server")
        ),
    ]


async def test_transfers_of_each_kind_go_on(target: Target, wide_sample: dict[str, Any], tmp_path: Path) -> None:
    sample = {item["tag"]: item for item in wide_sample["inbounds"]}
    certificate = sample["VLESS XHTTP"]["streamSettings"]["tlsSettings"]["certificates"][0]
    async with contextlib.AsyncExitStack() as stack:
        tls_port = await stack.enter_async_context(tls_target(certificate["certificate"], certificate["key"], tmp_path))
        users_inbounds, locals_ = inbounds_with_users(sample, tls_port), local_inbounds(target)
        config = make_config([*users_inbounds, *locals_])
        user = make_user("held@e2e", config_tags(config))
        links = [link(item, user, name=item["tag"], flow=item["settings"].get("flow", "")) for item in users_inbounds]
        muxed = {**links[0].outbound, "mux": {"enabled": True, "concurrency": 8}}
        links.append(dataclasses.replace(links[0], name=MUX, outbound=muxed))
        node = await stack.enter_async_context(NodeProcess(env=FAST))
        panel = await stack.enter_async_context(node.panel())
        await panel.start(config, [user], timeout_seconds=60)
        client = await stack.enter_async_context(ClientCore(links, target))
        held = [await stack.enter_async_context(client.hold(item.name)) for item in links]
        connections = [await stack.enter_async_context(local(item, target)) for item in locals_]

        async def drain(*arguments: str) -> dict[str, Any]:
            command = [sys.executable, "-m", "pgnode", "drain", *arguments, "--json"]
            code, text = await run_to_end(command, env=node.environment(), timeout_seconds=200)
            assert code == 0, text
            found: dict[str, Any] = json.loads(text)
            return found

        found = await drain()
        assert found["drain"]["away"] == sorted(config_tags(config))
        assert found["drain"]["stays"] == []
        assert found["open"] >= len(held) + len(connections)
        assert await inbound_tags(node.run_dir / "core.sock") == []
        for transfer in held:
            await transfer.wait_rounds(10, 60)
        # More than what is on its way anyway.
        block = bytes(range(256)) * (4 * BLOCK_BYTES // 256)
        for connection in connections:
            assert await connection.echo(block)
        # Whoever multiplexes has no need of another connection; all others are turned away.
        await client.move(MUX, 1000, 1000)
        for item in links[:-1]:
            assert await client.refused(item.name), item.name
        for inbound in locals_:
            with pytest.raises(OSError, match="Connect"):
                await asyncio.open_connection("127.0.0.1", inbound["port"])
        await drain("--cancel")
        for item in links:
            await client.move(item.name, 1000, 1000)
        for transfer in held:
            await transfer.wait_rounds(3, 60)
            transfer.check()
        for inbound, connection in zip(locals_, connections, strict=True):
            assert await connection.echo(block)
            async with local(inbound, target) as another:
                assert await another.echo(block)
