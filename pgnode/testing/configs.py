"""Configs for the demo and the tests: what a panel would send, with free ports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pgnode.testing.ports import free_port
from pgnode.testing.users import SS2022_METHOD, ss2022_key


def make_config(inbounds: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a config around ``inbounds`` whose users may reach targets on loopback.

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


#: Laid over a config it makes the core count inbounds, which a node does not do by itself.
COUNTED_INBOUNDS = {"policy": {"system": {"statsInboundUplink": True, "statsInboundDownlink": True}}}


def make_inbound(
    tag: str, protocol: str, *, stream: Mapping[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
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
        make_inbound("VLESS", "vless"),
        make_inbound("VMess", "vmess"),
        make_inbound("Trojan", "trojan"),
        make_inbound("Shadowsocks", "shadowsocks", network="tcp,udp"),
        make_inbound("Shadowsocks-2022", "shadowsocks", method=SS2022_METHOD, password=ss2022_key(b"server")),
    ]


def config_tags(config: Mapping[str, Any]) -> list[str]:
    """Return the tags of a config's inbounds."""
    return [str(item["tag"]) for item in config["inbounds"]]
