"""Users for the demo and the tests: what a panel would send, with throwaway secrets."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Iterable, Sequence

from pgnode.wire import service_pb2 as pb

SS2022_METHOD = "2022-blake3-aes-128-gcm"
SS_METHOD = "chacha20-ietf-poly1305"


def ss2022_key(seed: bytes) -> str:
    """Return a Shadowsocks-2022 key of 16 bytes, in base64."""
    return base64.b64encode(hashlib.sha256(seed).digest()[:16]).decode()


def make_user(email: str, inbounds: Iterable[str], *, key: str = "", flow: str = "") -> pb.User:
    """Return a user who has every proxy. All secrets come from ``email`` and ``key``: another ``key``, other secrets.

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
    """Return ``count`` users, user0@demo, user1@demo and so on."""
    return [make_user(f"{name}{number}@demo", inbounds, key=key) for number in range(count)]
