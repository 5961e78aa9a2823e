"""Configs and users for the demo and the tests: what a panel would send, with free ports and throwaway secrets."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pgnode.wire import service_pb2 as pb

#: Ports are taken from below the range the kernel gives to outgoing connections (32768 and up on Linux), and above
#: those that need privileges, so that nothing takes one between its choice and its use.
_PORTS = range(10_000, 32_000)
#: The samples under tests/ come with ports of their own.
_SAMPLE_PORTS = range(20_400, 20_600)

_random = random.SystemRandom()

SS2022_METHOD = "2022-blake3-aes-128-gcm"
SS_METHOD = "chacha20-ietf-poly1305"


def free_port() -> int:
    """A port that is free now, for TCP and UDP, on all addresses of the machine."""
    for _ in range(200):
        port = _random.choice(_PORTS)
        if port in _SAMPLE_PORTS:
            continue
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            try:
                tcp.bind(("", port))
                udp.bind(("", port))
            except OSError:
                continue
        return port
    raise OSError("no free port found between 10000 and 32000")


def config(inbounds: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A config around ``inbounds`` whose users may reach targets on loopback.

    Freedom outbounds refuse private targets unless told otherwise; ``finalRules`` tells them (measured with the core
    26.10.10).
    """
    allow = [{"action": "allow", "ip": ["127.0.0.0/8"]}]
    return {
        "log": {"loglevel": "warning"},
        "inbounds": [dict(inbound) for inbound in inbounds],
        "outbounds": [
            {"tag": "DIRECT", "protocol": "freedom", "settings": {"finalRules": allow}},
            {"tag": "BLOCK", "protocol": "blackhole"},
        ],
    }


def inbound(tag: str, protocol: str, *, stream: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """One inbound on a free loopback port, without users."""
    if protocol == "vless":
        settings.setdefault("decryption", "none")
    made: dict[str, Any] = {
        "tag": tag,
        "listen": "127.0.0.1",
        "port": free_port(),
        "protocol": protocol,
        "settings": {"clients": [], **settings},
    }
    if stream:
        made["streamSettings"] = dict(stream)
    return made


def plain_inbounds() -> list[dict[str, Any]]:
    """VLESS, VMess, Trojan, Shadowsocks and Shadowsocks-2022, each over raw TCP; tags are those names."""
    return [
        inbound("VLESS", "vless"),
        inbound("VMess", "vmess"),
        inbound("Trojan", "trojan"),
        inbound("Shadowsocks", "shadowsocks", network="tcp,udp"),
        inbound("Shadowsocks-2022", "shadowsocks", method=SS2022_METHOD, password=ss2022_key(b"server")),
    ]


def ss2022_key(seed: bytes) -> str:
    """A Shadowsocks-2022 key of 16 bytes, in base64."""
    return base64.b64encode(hashlib.sha256(seed).digest()[:16]).decode()


def user(email: str, inbounds: Iterable[str], *, key: str = "", flow: str = "") -> pb.User:
    """A user who has every proxy. All secrets come from ``email`` and ``key``: another ``key``, other secrets.

    The Shadowsocks password is no base64 key on purpose: in a 2022 inbound it becomes one by the rule of the API.
    """
    seed = f"{email}/{key}"
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, seed))
    secret = hashlib.sha256(seed.encode()).hexdigest()[:20]
    return pb.User(
        email=email,
        inbounds=inbounds,
        proxies=pb.Proxy(
            vmess=pb.Vmess(id=identity),
            vless=pb.Vless(id=identity, flow=flow),
            trojan=pb.Trojan(password=secret),
            shadowsocks=pb.Shadowsocks(password=secret, method=SS_METHOD),
            hysteria=pb.Hysteria(auth=secret),
        ),
    )


def make_users(count: int, inbounds: Sequence[str], *, name: str = "user", key: str = "") -> list[pb.User]:
    """``count`` users: user0@demo, user1@demo …"""
    return [user(f"{name}{number}@demo", inbounds, key=key) for number in range(count)]


def tags(config_of_node: Mapping[str, Any]) -> list[str]:
    """The tags of a config's inbounds."""
    return [str(item["tag"]) for item in config_of_node["inbounds"]]
