"""Routing rules as the core's configs have them, and spoilt ones. Pure."""

from __future__ import annotations

from random import Random

from tests.fuzz import values
from tests.fuzz.values import Json

_FIELDS: dict[str, tuple[Json, ...]] = {
    "domain": (["full:a.example"], ["domain:b.example", "c"], ["regexp:^x.*$"], ["geosite:cn"], []),
    "ip": (["10.0.0.0/8"], ["::1"], ["geoip:private"], ["!10.0.0.0/8"], ["geoip:!private"], "10.0.0.0/8"),
    "source": (["127.0.0.2"], ["geoip:private"]),
    "sourceIP": (["127.0.0.2/32"],),
    "localIP": (["127.0.0.1"],),
    "port": ("443", "1-1024,5000", 53, "env:HOME", [80, "90-100"]),
    "sourcePort": ("1024-2048",),
    "localPort": ("443",),
    "vlessRoute": ("1-2", 5),
    "network": ("tcp", "udp", "tcp,udp", ["tcp"]),
    "user": (["nobody@demo"], ["regexp:^vip"]),
    "inboundTag": (["VLESS"], ["nobody"], "VLESS"),
    "protocol": (["bittorrent"], ["http", "tls"]),
    "attrs": ({":method": "GET"}, {"a": "("}),
    "process": (["curl"], ["self/"]),
    "domainMatcher": ("hybrid", "linear"),
    "type": ("field", "chinaip"),
    "ruleTag": ("r1", "r2", "r3", ""),
    "enabled": (True, False),
    "webhook": ({"url": "http://127.0.0.1:1/"},),
}
_TARGETS: tuple[dict[str, Json], ...] = (
    {"outboundTag": "DIRECT"},
    {"outboundTag": "BLOCK"},
    {"outboundTag": "nobody"},
    {"balancerTag": "exits"},
    {"balancerTag": "nobody"},
    {"outboundTag": "DIRECT", "balancerTag": "spread"},
    {},
)


def rule(rng: Random) -> Json:
    """Return a rule, in most cases a good one, else one with some changes."""
    made: dict[str, Json] = {
        name: rng.choice(_FIELDS[name]) for name in rng.sample(sorted(_FIELDS), rng.randrange(1, 4))
    }
    made |= rng.choice(_TARGETS)
    if rng.random() < 0.5:
        made["ruleTag"] = f"fuzz-{rng.randrange(20)}"
    return values.mutate(rng, made, rng.randrange(1, 4)) if rng.random() < 0.6 else made
