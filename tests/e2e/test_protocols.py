"""Each protocol and transport with a real client core: bytes move, and the node counts exactly those."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import pgnode
from pgnode.testing.configs import COUNTED_INBOUNDS, config_tags, make_config, make_inbound, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, PanelError, Traffic
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb
from pgnode.wire.node_version import told_version
from tests.support.polling import eventually
from tests.support.tls_target import tls_target

VISION = "xtls-rprx-vision"

#: Inbound -> (protocol, name of the inbound in the sample whose transport it has).
TRANSPORTS = {
    "VLESS WebSocket": ("vless", "VLESS WS"),
    "VLESS XHTTP": ("vless", "VLESS XHTTP"),
    "VMess HTTPUpgrade": ("vmess", "VMess HTTPUpgrade"),
    "Trojan gRPC": ("trojan", "Trojan gRPC TLS"),
    "Hysteria": ("hysteria", "Hysteria"),
}
PLAIN = ["VLESS", "VMess", "Trojan", "Shadowsocks", "Shadowsocks-2022"]
ALL = [*PLAIN, *TRANSPORTS, "VLESS REALITY vision"]


def email_of(tag: str) -> str:
    """Each inbound has a user of its own here, so that counters tell them apart."""
    return f"{tag.lower().replace(' ', '-')}@e2e"


@dataclass
class Stage:
    """A node with every inbound, and a client core with a link into each."""

    panel: PanelClient
    client: ClientCore

    async def counted(self, email: str, up_bytes: int, down_bytes: int) -> None:
        """Wait until the node's counters of a user say exactly this."""
        wanted = Traffic(up_bytes, down_bytes)
        seen: list[Traffic] = []

        async def look() -> bool:
            seen.append(await self.panel.traffic(email))
            return seen[-1] == wanted

        await eventually(look, f"{email} counted as {wanted}, seen {seen[-3:]}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    node: NodeProcess,
    panel: PanelClient,
    target: Target,
    wide_sample: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stage]:
    sample = {item["tag"]: item for item in wide_sample["inbounds"]}
    certificate = sample["VLESS XHTTP"]["streamSettings"]["tlsSettings"]["certificates"][0]
    folder: Path = tmp_path_factory.mktemp("tls")
    async with tls_target(certificate["certificate"], certificate["key"], folder) as tls_port:
        inbounds = plain_inbounds()
        for tag, (protocol, sampled) in TRANSPORTS.items():
            settings = {"version": 2} if protocol == "hysteria" else {}
            inbounds.append(make_inbound(tag, protocol, stream=sample[sampled]["streamSettings"], **settings))
        reality = dict(sample["VLESS TCP REALITY"]["streamSettings"])
        reality["realitySettings"] = reality["realitySettings"] | {"target": f"127.0.0.1:{tls_port}"}
        inbounds.append(make_inbound("VLESS REALITY vision", "vless", stream=reality, flow=VISION))
        config = make_config(inbounds) | COUNTED_INBOUNDS
        users = {tag: make_user(email_of(tag), config_tags(config)) for tag in ALL}
        await panel.start(config, users.values())
        links = [
            link(item, users[item["tag"]], name=item["tag"], flow=item["settings"].get("flow", "")) for item in inbounds
        ]
        # One user from two addresses more.
        links += [
            link(inbounds[0], users["VLESS"], name=f"from {address}", source_address=address)
            for address in ("127.0.0.3", "127.0.0.4")
        ]
        async with ClientCore(links, target) as client:
            yield Stage(panel, client)


@pytest.mark.parametrize("tag", ALL)
async def test_bytes_move_and_are_counted(stage: Stage, tag: str) -> None:
    email = email_of(tag)
    before = await stage.panel.traffic(email)
    await stage.client.move(tag, 300_000, 1_200_000)
    await stage.client.move(tag, 5_000, 0)
    await stage.counted(email, before.uplink_bytes + 305_000, before.downlink_bytes + 1_200_000)


async def test_reset_hands_over_what_was_counted_and_nothing_twice(stage: Stage) -> None:
    email = email_of("VMess")
    await stage.panel.stats(pb.UserStat, email, reset=True)
    await stage.client.move("VMess", 40_000, 90_000)
    await stage.counted(email, 40_000, 90_000)
    assert await stage.panel.traffic(email, reset=True) == Traffic(40_000, 90_000)
    assert await stage.panel.traffic(email, reset=True) == Traffic(0, 0)
    await stage.counted(email, 0, 0)
    await stage.client.move("VMess", 1_000, 2_000)
    await stage.counted(email, 1_000, 2_000)


async def test_callers_at_the_same_time_are_given_it_once(stage: Stage) -> None:
    email = email_of("VMess")
    await stage.panel.stats(pb.UserStat, email, reset=True)
    await stage.client.move("VMess", 50_000, 70_000)
    await stage.counted(email, 50_000, 70_000)
    taken = await asyncio.gather(*(stage.panel.traffic(email, reset=True) for _ in range(4)))
    assert sorted((one.uplink_bytes, one.downlink_bytes) for one in taken) == [(0, 0), (0, 0), (0, 0), (50_000, 70_000)]


async def test_all_users_at_once_with_reset(stage: Stage) -> None:
    await stage.panel.stats(pb.UsersStat, reset=True)
    await stage.client.move("Trojan", 10_000, 20_000)
    await stage.client.move("Shadowsocks", 30_000, 40_000)
    await stage.counted(email_of("Trojan"), 10_000, 20_000)
    await stage.counted(email_of("Shadowsocks"), 30_000, 40_000)
    stats = await stage.panel.stats(pb.UsersStat, reset=True)
    moved = {(stat.name, stat.link, stat.type): stat.value for stat in stats if stat.value}
    assert moved == {
        (email_of("Trojan"), "traffic", "uplink"): 10_000,
        (email_of("Trojan"), "traffic", "downlink"): 20_000,
        (email_of("Shadowsocks"), "traffic", "uplink"): 30_000,
        (email_of("Shadowsocks"), "traffic", "downlink"): 40_000,
    }
    assert sum(stat.value for stat in await stage.panel.stats(pb.UsersStat, reset=True)) == 0


async def test_inbounds_and_outbounds_are_counted(stage: Stage) -> None:
    await stage.client.move("VLESS", 100_000, 200_000)

    async def both() -> bool:
        inbounds = {(s.name, s.type): s.value for s in await stage.panel.stats(pb.Inbounds)}
        outbounds = {(s.name, s.type): s.value for s in await stage.panel.stats(pb.Outbounds)}
        return (
            inbounds.get(("VLESS", "uplink"), 0) >= 100_000
            and inbounds.get(("VLESS", "downlink"), 0) >= 200_000
            and outbounds.get(("DIRECT", "uplink"), 0) >= 100_000
            and outbounds.get(("DIRECT", "downlink"), 0) >= 200_000
        )

    await eventually(both, "inbound VLESS and outbound DIRECT are counted")
    assert {s.name for s in await stage.panel.stats(pb.Inbound, "VLESS")} == {"VLESS"}
    assert {s.name for s in await stage.panel.stats(pb.Outbound, "DIRECT")} == {"DIRECT"}


async def test_online_users_and_their_addresses(stage: Stage) -> None:
    email = email_of("VLESS")
    async with stage.client.hold("from 127.0.0.3"), stage.client.hold("from 127.0.0.4"):

        async def both() -> dict[str, int] | None:
            addresses = await stage.panel.online_addresses(email)
            return addresses if {"127.0.0.3", "127.0.0.4"} <= addresses.keys() else None

        addresses = await eventually(both, f"{email} is online from both addresses")
        assert addresses is not None
        now = time.time()
        assert all(now - 60 < last_seen <= now + 1 for last_seen in addresses.values())
        assert await stage.panel.online(email) == len(await stage.panel.online_addresses(email)) >= 2


@pytest.mark.parametrize("path", ["/stats/user/online", "/stats/user/online_ip"])
async def test_a_user_who_is_not_online_is_not_found(stage: Stage, path: str) -> None:
    with pytest.raises(PanelError) as caught:
        await stage.panel.call("GET", path, pb.StatRequest(name="nobody@e2e"), pb.OnlineStatResponse)
    assert caught.value.status == 404
    assert caught.value.code == "NOT_FOUND"
    assert "not found" in caught.value.text


async def test_system_and_core_report_figures(stage: Stage) -> None:
    system = await stage.panel.system_stats()
    assert 0 < system.mem_used <= system.mem_total
    assert system.cpu_cores > 0
    assert system.uptime > 0
    core = await stage.panel.backend_stats()
    assert core.num_goroutine > 0
    assert core.alloc > 0
    info = await stage.panel.info()
    assert info.started
    assert info.running
    assert info.core_type == "xray"
    assert info.core_version
    assert (info.node_version, info.version) == (told_version(pgnode.__version__), pgnode.__version__)
