"""Inbounds, users and clients of each protocol, for tests of the core's API; and a server that echoes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from pgnode.xray.client.api import CoreApi
from pgnode.xray.proto import (
    hysteria_account_pb2,
    shadowsocks_2022_pb2,
    shadowsocks_pb2,
    trojan_pb2,
    typed_message_pb2,
    user_pb2,
    vless_pb2,
    vmess_pb2,
)
from tests.integration.xray.conftest import DEADLINE_SECONDS, api_part

WIDE = json.loads((Path(__file__).parents[2] / "samples" / "wide.json").read_text())
SERVER_KEY = "AAECAwQFBgcICQoLDA0ODw=="


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def _key(name: str) -> str:
    return base64.b64encode(uuid.uuid5(uuid.NAMESPACE_DNS, name).bytes).decode()


def user_of(email: str, account: Message) -> bytes:
    typed = typed_message_pb2.TypedMessage(type=account.DESCRIPTOR.full_name, value=account.SerializeToString())
    return user_pb2.User(email=email, account=typed).SerializeToString()


@dataclass(frozen=True)
class Protocol:
    """How a protocol's inbound, users and client look."""

    settings: dict[str, Any]
    account: Callable[[str], Message]
    client: Callable[[str], dict[str, Any]]
    outbound: Callable[[str, int], dict[str, Any]]
    name: str
    refuses_known: bool = True
    refuses_unknown: bool = True


def _vnext(port: int, user: dict[str, Any]) -> dict[str, Any]:
    return {"vnext": [{"address": "127.0.0.1", "port": port, "users": [user]}]}


def _server(port: int, **more: Any) -> dict[str, Any]:
    return {"servers": [{"address": "127.0.0.1", "port": port, **more}]}


_HYSTERIA = next(item for item in WIDE["inbounds"] if item["tag"] == "Hysteria")

PROTOCOLS = {
    "vless": Protocol(
        {"decryption": "none"},
        lambda name: vless_pb2.Account(id=_id(name)),
        lambda name: {"id": _id(name)},
        lambda name, port: _vnext(port, {"id": _id(name), "encryption": "none"}),
        "vless",
    ),
    "vmess": Protocol(
        {},
        lambda name: vmess_pb2.Account(id=_id(name)),
        lambda name: {"id": _id(name)},
        lambda name, port: _vnext(port, {"id": _id(name), "security": "auto"}),
        "vmess",
    ),
    "trojan": Protocol(
        {},
        lambda name: trojan_pb2.Account(password=name),
        lambda name: {"password": name},
        lambda name, port: _server(port, password=name),
        "trojan",
    ),
    "shadowsocks": Protocol(
        {"network": "tcp,udp"},
        lambda name: shadowsocks_pb2.Account(password=name, cipher_type=shadowsocks_pb2.CipherType.CHACHA20_POLY1305),
        lambda name: {"password": name, "method": "chacha20-poly1305"},
        lambda name, port: _server(port, password=name, method="chacha20-poly1305"),
        "shadowsocks",
        refuses_known=False,
    ),
    "shadowsocks-2022": Protocol(
        {"network": "tcp,udp", "method": "2022-blake3-aes-128-gcm", "password": SERVER_KEY},
        lambda name: shadowsocks_2022_pb2.Account(key=_key(name)),
        lambda name: {"password": _key(name)},
        lambda name, port: _server(port, password=f"{SERVER_KEY}:{_key(name)}", method="2022-blake3-aes-128-gcm"),
        "shadowsocks",
    ),
    "hysteria": Protocol(
        _HYSTERIA["settings"],
        lambda name: hysteria_account_pb2.Account(auth=name),
        lambda name: {"auth": name},
        lambda _name, port: {"version": 2, "address": "127.0.0.1", "port": port},
        "hysteria",
        refuses_known=False,
        refuses_unknown=False,
    ),
}


def inbound_of(protocol: Protocol, port: int, first: str = "first") -> dict[str, Any]:
    clients = [{"email": f"{first}@node", **protocol.client(first)}]
    inbound = {
        "tag": "in",
        "listen": "127.0.0.1",
        "port": port,
        "protocol": protocol.name,
        "settings": {**protocol.settings, "clients": clients},
    }
    if protocol.name == "hysteria":
        inbound["streamSettings"] = _HYSTERIA["streamSettings"]
    return inbound


def config_with(run_dir: Path, *inbounds: dict[str, Any]) -> str:
    direct = {"protocol": "freedom", "settings": {"finalRules": [{"action": "allow", "ip": ["127.0.0.0/8"]}]}}
    return json.dumps(
        {"log": {"loglevel": "warning"}, "inbounds": inbounds, "outbounds": [direct], **api_part(run_dir)}
    )


async def emails(api: CoreApi) -> list[str]:
    return sorted(user.email.lower() for user in await api.users.inbound_users("in", DEADLINE_SECONDS))


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def client_config(run_dir: Path, protocol: Protocol, ports: tuple[int, int, int], name: str = "first") -> str:
    """A core that listens on the first port and forwards through the second to the third."""
    local, port, target = ports
    outbound: dict[str, Any] = {"protocol": protocol.name, "settings": protocol.outbound(name, port)}
    if protocol.name == "hysteria":
        pin = {"serverName": "node.example", "alpn": ["h3"], "pinnedPeerCertSha256": _certificate_hash()}
        outbound["streamSettings"] = {
            "network": "hysteria",
            "security": "tls",
            "tlsSettings": pin,
            "hysteriaSettings": {"version": 2, "auth": name},
        }
    entry = {
        "listen": "127.0.0.1",
        "port": local,
        "protocol": "dokodemo-door",
        "settings": {"address": "127.0.0.1", "port": target, "network": "tcp"},
    }
    log = {"loglevel": "warning"}
    return json.dumps({"log": log, "inbounds": [entry], "outbounds": [outbound], **api_part(run_dir)})


def _certificate_hash() -> str:
    pem = "\n".join(_HYSTERIA["streamSettings"]["tlsSettings"]["certificates"][0]["certificate"])
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


async def ask(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes) -> bytes:
    reader, writer = stream
    async with asyncio.timeout(DEADLINE_SECONDS):
        writer.write(text)
        await writer.drain()
        return await reader.readexactly(len(text))
