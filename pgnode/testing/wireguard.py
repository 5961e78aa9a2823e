"""WireGuard for the demo, the tests and the bench: what a panel sends, and a client core's way in. All keys are throwaway."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from pgnode.testing.ports import free_port
from pgnode.testing.traffic import Link
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.peers import public_key_of

#: Where users reach the target. An address of loopback is none that a tunnel may carry, so the way out of the node leads from
#: here to the target.
TARGET_HOST = "198.51.100.1"


def private_key(seed: str) -> str:
    """Return a private key in base64."""
    return base64.b64encode(hashlib.sha256(seed.encode()).digest()).decode()


def public_key(seed: str) -> str:
    """Return the public half of :func:`private_key`, in base64."""
    return base64.b64encode(bytes.fromhex(public_key_of(hashlib.sha256(seed.encode()).hexdigest()))).decode()


def interface(**changes: Any) -> dict[str, Any]:
    """Return the config of an interface as a panel sends it, on a free port."""
    config = {
        "interface_name": "wg0",
        "private_key": private_key("node"),
        "pre_shared_key": private_key("shared"),
        "listen_port": free_port(),
        "address": ["10.66.0.1/24", "fd66::1/64"],
        "public_key": public_key("node"),
    }
    return {name: value for name, value in {**config, **changes}.items() if value is not None}


def addresses(number: int) -> list[str]:
    """Return the addresses of a user, as a panel gives them."""
    return [f"10.66.{number // 256}.{number % 256}/32", f"fd66::{number:x}/128"]


def peer(email: str, peer_ips: Iterable[str], *, key: str = "", inbounds: Iterable[str] = ("wg0",)) -> pb.User:
    """Return a user with a key that comes from ``key``, or else from its e-mail."""
    wireguard = pb.Wireguard(public_key=public_key(key or email), peer_ips=peer_ips)
    return pb.User(email=email, inbounds=inbounds, proxies=pb.Proxy(wireguard=wireguard))


def wireguard_link(config: Mapping[str, Any], user: pb.User, *, key: str = "", name: str = "") -> Link:
    """Return the way of a user into an interface, through a WireGuard client that needs no device.

    Args:
        config: The interface, as :func:`interface` made it.
        user: The user, as :func:`peer` made it.
        key: What its key was made from.
        name: The link's, its e-mail where it is left out.

    Returns:
        The link.
    """
    server = {
        "publicKey": config["public_key"],
        "preSharedKey": config.get("pre_shared_key", ""),
        "endpoint": f"127.0.0.1:{config['listen_port']}",
        "allowedIPs": ["0.0.0.0/0", "::/0"],
    }
    settings = {
        "secretKey": private_key(key or user.email),
        "address": list(user.proxies.wireguard.peer_ips),
        "peers": [server],
        "noKernelTun": True,
        "mtu": 1420,
    }
    return Link(name or user.email, {"protocol": "wireguard", "settings": settings})


def way_out(port: int) -> dict[str, Any]:
    """Return an outbound that leads everything to a target on this port of loopback."""
    allow = [{"action": "allow", "ip": ["127.0.0.0/8"]}]
    return {"protocol": "freedom", "settings": {"redirect": f"127.0.0.1:{port}", "finalRules": allow}}
