"""Xray configs: the samples and one of the fuzzers' own, and how they are spoilt. Pure but for reading the samples."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from random import Random
from typing import Any

from pgnode.wire import service_pb2 as pb
from tests.fuzz import values
from tests.fuzz.values import Json

SAMPLES = Path(__file__).parent.parent / "samples"

#: The first port of the fuzzers' own inbounds, on the first node and on the second; nothing else of the tests uses them.
FIRST_PORT, SECOND_PORT = 20_560, 20_580
TAGS = ("VLESS", "Trojan", "Shadowsocks")

_KEYS = ("tag", "protocol", "port", "listen", "settings", "streamSettings", "network", "security", "dest", "clients")
_WORDS = (
    "vless",
    "quux",
    "freedom",
    "dokodemo-door",
    "ws",
    "xhttp",
    "tls",
    "reality",
    "none",
    "mkcp",
    "env:NOTHING",
    "API",
)


def base_config(first_port: int = FIRST_PORT) -> dict[str, Any]:
    """Return the config that nodes run while they are fuzzed."""
    allow = {"finalRules": [{"action": "allow", "ip": ["127.0.0.0/8"]}]}
    exits = [
        {
            "tag": f"exit-{n}",
            "protocol": "socks",
            "settings": {"servers": [{"address": "127.0.0.1", "port": first_port + 10 + n}]},
        }
        for n in (1, 2)
    ]
    settings: dict[str, dict[str, Any]] = {
        "VLESS": {"decryption": "none"},
        "Trojan": {},
        "Shadowsocks": {"network": "tcp,udp"},
    }
    return {
        "log": {"loglevel": "warning"},
        "inbounds": [
            {
                "tag": tag,
                "listen": "127.0.0.1",
                "port": first_port + number,
                "protocol": tag.lower(),
                "settings": {"clients": [], **settings[tag]},
            }
            for number, tag in enumerate(TAGS)
        ],
        "outbounds": [
            {"tag": "DIRECT", "protocol": "freedom", "settings": allow},
            {"tag": "BLOCK", "protocol": "blackhole"},
            *exits,
        ],
        "routing": {
            "balancers": [
                {"tag": "exits", "selector": ["exit-"]},
                {"tag": "spread", "selector": ["exit-1", "exit-2"], "strategy": {"type": "roundRobin"}},
            ],
            "rules": [{"inboundTag": ["nobody"], "outboundTag": "DIRECT", "ruleTag": "first"}],
        },
    }


@functools.cache
def _sample(name: str) -> str:
    return (SAMPLES / f"{name}.json").read_text()


def samples() -> list[str]:
    """Return the names of the samples."""
    return sorted(path.stem for path in SAMPLES.glob("*.json"))


def _config_change(rng: Random, config: Json) -> None:
    """Change something that configs in particular have."""
    where = [(node, key) for node, key in values.places(config) if isinstance(key, str)]
    node, key = rng.choice([place for place in where if place[1] in _KEYS] or where)
    match rng.randrange(6):
        case 0:
            node[key] = rng.choice(_WORDS)
        case 1:
            node[key] = values.surrogate(rng)
        case 2 if isinstance(config.get("inbounds"), list) and config["inbounds"]:
            config["inbounds"].append(copy.deepcopy(rng.choice(config["inbounds"])))
        case 3:
            config.setdefault("log", {})
            config["log"] = {"loglevel": values.anything(rng), "access": values.anything(rng)}
        case 4:
            part = rng.choice(
                ("dns", "policy", "api", "stats", "observatory", "metrics", "fakedns", "reverse", "transport", "")
            )
            config[part] = values.anything(rng)
        case _:
            node[key] = values.nested(rng.choice(values.DEPTHS[:4]), as_list=rng.random() < 0.5)


def config(rng: Random) -> Json:
    """Return a config with some changes."""
    made = base_config(SECOND_PORT) if rng.random() < 0.5 else json.loads(_sample(rng.choice(samples())))
    if rng.random() < 0.05:
        return made
    if rng.random() < 0.5:
        _config_change(rng, made)
    return values.mutate(rng, made, rng.randrange(0, 4))


def config_bytes(rng: Random) -> bytes:
    """Return the text of a config, spoilt as JSON now and then; always UTF-8, since it is a text in a message."""
    data = values.dumps(config(rng))
    if rng.random() < 0.1:
        data = values.spoil_json(rng, data)
    return data.decode("utf-8", "replace").encode()


def backend(rng: Random) -> bytes:
    """Return the message of a start with such a config."""
    message = pb.Backend(config=config_bytes(rng).decode())
    if rng.random() < 0.1:
        message.exclude_inbounds.append(values.text(rng)[:100])
    if rng.random() < 0.05:
        message.keep_alive = rng.getrandbits(64)
    return message.SerializeToString()
