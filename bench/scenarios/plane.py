"""Users' traffic: what a gigabyte costs the core under the node, beside the same core run bare with the reference's counters.

Each protocol's user moves bytes to a TLS server, up and down, in one stream and in eight, as most of what users reach speaks TLS:
the flow ``xtls-rprx-vision`` copies it without encrypting it again. The load, its client core and the target share the machine's
processors with the core; only the core's own time counts.

Two bare cores run the same config. How far they are apart is what this machine cannot tell: a node that differs less
is as good as they.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench.moving_users import cpu_seconds
from bench.registry import Bench, scenario
from bench.report import Figure, Row, at_most
from bench.samples import middle, share_of, turns
from bench.servers import bare_core, core_pid, node, started
from pgnode.testing.configs import config_tags, make_config, make_inbound
from pgnode.testing.target import REQUEST_BYTES, Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import SS2022_METHOD, make_user, ss2022_key
from pgnode.wire import service_pb2 as pb

#: Bytes that all streams of a turn move together.
TURN_BYTES = 60_000_000
#: In a round, of each side. Many short turns share out what else the machine does, where few long ones do not.
TURNS = 4
STREAMS = (1, 8)
AIM = 1.03
NODE, BARE, AGAIN = "node", "bare", "bare again"
VISION = "xtls-rprx-vision"
#: REALITY's, X25519: a throwaway key.
_PRIVATE_KEY = "eIrUhHnlFdfgG8jXzxeY72bdE1JR3X0-jDM1roYk93U"


@scenario(
    "plane", "the core's time for a gigabyte of users' traffic, beside a bare core", timeout_seconds=1200, default=False
)
async def plane(bench: Bench) -> AsyncGenerator[Row, None]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgnplane")))
        generated = folder / "config.json"
        beside = await stack.enter_async_context(node(bench, GENERATED_CONFIG_PATH=str(generated)))
        # What the node made for its API serves as anybody's certificate here.
        chain, key = beside.ca_file, beside.ca_file.with_name("key.pem")
        target_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        target_tls.load_cert_chain(chain, key)
        target = await stack.enter_async_context(Target(tls=target_tls))
        config = make_config(inbounds(chain.read_text().splitlines(), key.read_text().splitlines()))
        user = make_user("mover@bench", config_tags(config))
        async with beside.panel() as panel:
            await started(bench, panel, config, [user])
        finished = json.loads(generated.read_text(encoding="utf-8"))
        bare, again = [
            await stack.enter_async_context(bare_core(with_counters_of_reference(finished))) for _ in range(2)
        ]
        sides = {
            name: Side(pid, await stack.enter_async_context(_client(running, user, target, chain)))
            for name, pid, running in (
                (NODE, core_pid(beside), finished),
                (BARE, bare.pid, bare.config),
                (AGAIN, again.pid, again.config),
            )
        }
        told: list[Took] = []
        for tag in config_tags(config):
            for direction in ("up", "down"):
                for streams in STREAMS:
                    bench.say(f"{tag}, {direction}, {streams} streams")
                    found = await _took(bench, sides, tag, direction, streams)
                    told.append(found)
                    yield found.row(f"{tag}, {direction}load, {streams} stream{'s' if streams > 1 else ''}")
        yield _all_together(told)


def inbounds(chain: Sequence[str], key: Sequence[str]) -> list[dict[str, Any]]:
    """One inbound for each kind of traffic. Certificate and key are lines of PEM."""
    certificates = {"certificates": [{"certificate": list(chain), "key": list(key)}], "alpn": ["h2", "http/1.1"]}
    tls = {"network": "raw", "security": "tls", "tlsSettings": certificates}
    with_tls = make_inbound("VLESS TLS", "vless", stream=tls)
    reality = {
        "target": f"127.0.0.1:{with_tls['port']}",
        "serverNames": ["localhost"],
        "privateKey": _PRIVATE_KEY,
        "shortIds": ["0123456789abcdef"],
    }
    through_reality = {"network": "raw", "security": "reality", "realitySettings": reality}
    return [
        make_inbound("VLESS", "vless"),
        with_tls,
        make_inbound("VLESS REALITY vision", "vless", stream=through_reality, flow=VISION),
        make_inbound("VLESS WebSocket", "vless", stream={"network": "ws", "wsSettings": {"path": "/bench"}}),
        make_inbound("Trojan TLS", "trojan", stream=tls),
        make_inbound("VMess", "vmess"),
        make_inbound("Shadowsocks", "shadowsocks"),
        make_inbound("Shadowsocks-2022", "shadowsocks", method=SS2022_METHOD, password=ss2022_key(b"server")),
    ]


def with_counters_of_reference(config: dict[str, Any]) -> dict[str, Any]:
    """The same config with what the reference counts: users and outbounds, and nothing else unless the panel's config says so."""
    policy = config["policy"]
    system = {name: value for name, value in policy["system"].items() if not name.startswith("statsInbound")}
    level = {name: value for name, value in policy["levels"]["0"].items() if name != "statsUserOnline"}
    return config | {"policy": policy | {"system": system, "levels": policy["levels"] | {"0": level}}}


@dataclass(frozen=True, slots=True)
class Side:
    """A core, and a client through which a user moves bytes."""

    core_pid: int
    client: ClientCore

    async def move(self, tag: str, direction: str, streams: int) -> float:
        """Move TURN_BYTES; return the core's processor time for a gigabyte, in seconds."""
        each = TURN_BYTES // streams
        up, down = (each, 1) if direction == "up" else (REQUEST_BYTES, each)
        before = cpu_seconds(self.core_pid)
        await asyncio.gather(*(self.client.move(tag, up, down) for _ in range(streams)))
        return (cpu_seconds(self.core_pid) - before) * 1e9 / TURN_BYTES


def _client(config: Mapping[str, Any], user: pb.User, target: Target, authority: Path) -> ClientCore:
    links = [link(item, user, name=item["tag"], flow=item["settings"].get("flow", "")) for item in config["inbounds"]]
    tls = ssl.create_default_context(cafile=str(authority))
    return ClientCore(links, target, tls=tls)


async def _took(bench: Bench, sides: dict[str, Side], tag: str, direction: str, streams: int) -> Took:
    took: dict[str, list[float]] = {name: [] for name in sides}
    for name in turns(list(sides), bench.rounds * TURNS):
        took[name].append(await sides[name].move(tag, direction, streams))
    return Took(*(middle(took[name]) for name in (NODE, BARE, AGAIN)))


@dataclass(frozen=True, slots=True)
class Took:
    """What a gigabyte cost each core, in seconds of its processor time."""

    node: float
    bare: float
    again: float

    @property
    def share(self) -> float:
        """The node's core by the mean of the bare ones."""
        return share_of(self.node, (self.bare + self.again) / 2)

    @property
    def apart(self) -> float:
        """The dearer of the bare cores by the other."""
        return share_of(max(self.bare, self.again), min(self.bare, self.again))

    def row(self, what: str) -> Row:
        bare = [Figure((self.bare + self.again) / 2, "s/GB"), Figure(self.apart, "times", "one bare core the other")]
        return Row(what, [Figure(self.node, "s/GB")], bare, "bare core", at_most(self.share, AIM, "of the bare core"))


def _all_together(told: Sequence[Took]) -> Row:
    """All rows as one: the geometric means, in which what moves single rows by chance cancels out."""
    share, apart = (geometric_mean(ratios) for ratios in ([one.share for one in told], [one.apart for one in told]))
    bare = [Figure(1.0, "times"), Figure(apart, "times", "one bare core the other")]
    return Row(
        "all of these, in the mean",
        [Figure(share, "times")],
        bare,
        "bare core",
        at_most(share, AIM, "of the bare core"),
    )
