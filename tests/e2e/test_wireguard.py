"""A WireGuard backend, as a real panel starts and changes it: real clients get in, and what they move is counted exactly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, PanelError, Traffic
from pgnode.testing.target import REQUEST_BYTES, Mode, Target, request
from pgnode.testing.traffic import ClientCore
from pgnode.testing.users import make_user
from pgnode.testing.wireguard import TARGET_HOST, addresses, interface, peer, way_out, wireguard_link
from pgnode.testing.wireguard_go import WireguardGo, missing
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually
from tests.support.processes import core_pid
from tests.support.stored import stored_users

#: Tag and proxies of other cores of the panel, which come with every change.
ELSEWHERE = "VLESS of another core"


def changed(user: pb.User, *, inbounds: list[str] | None = None) -> pb.User:
    """The form of a user in changes: with the proxies of all protocols, and the inbounds of all its groups."""
    found = make_user(user.email, [*user.inbounds, ELSEWHERE] if inbounds is None else inbounds)
    found.proxies.wireguard.CopyFrom(user.proxies.wireguard)
    return found


@dataclass
class Stage:
    """A node, and what its users talk to."""

    node: NodeProcess
    panel: PanelClient
    target: Target

    async def start(self, config: dict[str, Any], users: list[pb.User]) -> pb.BaseInfoResponse:
        return await self.panel.start(config, users, backend_type=pb.WIREGUARD)

    def client(self, config: dict[str, Any], *users: pb.User, keys: tuple[str, ...] = ()) -> ClientCore:
        """A client core with a way in for each user; a user of whom ``keys`` has something comes with that key."""
        links = [
            wireguard_link(config, user, key=key)
            for user, key in zip(users, [*keys, *[""] * (len(users) - len(keys))], strict=True)
        ]
        return ClientCore(links, self.target, target_host=TARGET_HOST)

    async def counted(self, email: str, up_bytes: int, down_bytes: int) -> None:
        """Wait until the node's counters of a user say exactly this."""
        seen: list[Traffic] = []

        async def look() -> bool:
            seen.append(await self.panel.traffic(email))
            return seen[-1] == Traffic(up_bytes, down_bytes)

        await eventually(look, f"{email} counted as {up_bytes} and {down_bytes}, seen {seen[-3:]}")

    async def listed(self) -> set[str]:
        """Whom the core has."""
        return set(await inbound_users(self.node.run_dir / "core.sock", "wg0"))


@pytest.fixture(scope="module")
def outbound(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The way out of the node: to the target, wherever users want to go."""
    path: Path = tmp_path_factory.mktemp("wg") / "outbound.json"
    path.write_text(json.dumps(way_out(target.port)))
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(target: Target, outbound: Path) -> AsyncIterator[Stage]:
    async with NodeProcess(env={**FAST, "WG_EGRESS_OUTBOUND_FILE": str(outbound)}) as node, node.panel() as panel:
        yield Stage(node, panel, target)


async def test_users_get_in_and_are_counted_through_every_change(stage: Stage) -> None:
    """Added, another key, other addresses swapped, removed: while somebody else's transfer goes on."""
    config = interface(latency={"test_url": f"http://{TARGET_HOST}/", "timeout_seconds": 2})
    first, second, keeper = peer("117", addresses(2)), peer("118", addresses(3)), peer("119", addresses(4))
    info = await stage.start(config, [first, second, keeper])
    assert (info.started, info.core_type, bool(info.core_version)) == (True, "wireguard", True)
    assert (await stage.panel.info()).core_type == "wireguard"

    async with stage.client(config, keeper) as kept, kept.hold("119") as held:
        async with stage.client(config, first, second) as client:
            await client.move("117", 300_000, 1_200_000)
            await client.move("118", 5_000, 70_000)
            await stage.counted("117", 300_000, 1_200_000)
            await stage.counted("118", 5_000, 70_000)
            # No connection of the user is open any more.
            assert await stage.panel.online("117") == 1
            assert set(await stage.panel.online_addresses("117")) == {"10.66.0.2"}
            outbounds = {(stat.name, stat.type): stat.value for stat in await stage.panel.stats(pb.Outbounds)}
            assert outbounds["wg0", "downlink"] >= 1_270_000
            assert [stat.name for stat in await stage.panel.stats(pb.Outbound, "wg0")] == ["wg0", "wg0"]
            [latency] = (await stage.panel.call("GET", "/stats/latency", None, pb.LatencyResponse)).latencies
            assert (latency.name, latency.alive, latency.source) == ("wg0", False, "xray-observatory")

        # A new key, as a revoked user gets it: the old one lets nobody in.
        revoked = peer("117", addresses(2), key="new")
        await stage.panel.sync_user(changed(revoked))
        async with stage.client(config, first) as client:
            assert await client.refused("117", timeout_seconds=2.0)
        # Two swap their IPv4 addresses in one call; the addresses are of a network that comes only with the next start.
        moved = [peer("117", ["10.88.0.3/32", "fd66::2/128"], key="new"), peer("118", ["10.88.0.2/32", "fd66::3/128"])]
        await stage.panel.sync_chunked([changed(user) for user in moved])
        swapped = [
            peer("117", ["10.88.0.2/32", "fd66::2/128"], key="new"),
            peer("118", ["10.88.0.3/32", "fd66::3/128"]),
        ]
        await stage.panel.sync_chunked([changed(user) for user in swapped])
        async with stage.client(config, *swapped, keys=("new",)) as client:
            await client.move("117", 1_000, 2_000)
            await client.move("118", 3_000, 4_000)
            await stage.counted("117", 301_000, 1_202_000)
            await stage.counted("118", 8_000, 74_000)
            # Removed users are cut at once.
            async with client.hold("118", silence_limit_seconds=3.0) as cut:
                await stage.panel.sync_user(changed(swapped[1], inbounds=[]))
                await eventually(lambda: cut.broken, "the transfer of a removed user ends")
            assert await client.refused("118", timeout_seconds=1.0)
            await client.move("117", 1_000, 1_000)
        # Another address ends no session of its user.
        await stage.panel.sync_user(changed(peer("119", [*addresses(4), "10.66.0.44/32"])))
        await held.wait_rounds(2)
        held.check()
    assert await stage.listed() == {"117", "119"}


async def test_one_key_and_one_address_have_one_user(stage: Stage) -> None:
    config = interface()
    await stage.start(config, [peer("1", addresses(2)), peer("2", addresses(3))])
    with pytest.raises(PanelError) as caught:
        await stage.panel.sync_chunked([peer("3", addresses(4)), peer("4", addresses(5), key="3")])
    assert (caught.value.status, caught.value.text) == (
        500,
        "failed to update users: 3: has the same WireGuard public key as '4', in inbound 'wg0'",
    )
    # The new user's call comes before the old one's removal.
    await stage.panel.sync_user(peer("5", addresses(2)))
    assert await stage.listed() == {"2", "4", "5"}
    assert stored_users(stage.node).failed["1"].cause == (
        "has the same WireGuard address 10.66.0.2/32 as '5', in inbound 'wg0'"
    )
    await stage.panel.sync_user(peer("1", addresses(9)))
    assert await stage.listed() == {"1", "2", "4", "5"}
    with pytest.raises(PanelError) as caught:
        await stage.panel.sync_chunked([pb.User(email="6", inbounds=["wg0"], proxies=_wireguard("no key"))])
    assert caught.value.text == "failed to update users: 6: wireguard public_key is not 32 bytes in base64"


def _wireguard(key: str) -> pb.Proxy:
    return pb.Proxy(wireguard=pb.Wireguard(public_key=key, peer_ips=["10.66.0.6"]))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"private_key": "x"}, "private_key is not a WireGuard key: it must be 32 bytes in base64"),
        ({"address": ["10.66.0.1/77"]}, "address[0] '10.66.0.1/77' is no address or network, such as 10.0.0.1/24"),
    ],
)
async def test_a_config_that_cannot_be_is_refused_by_its_part(stage: Stage, config: dict[str, Any], text: str) -> None:
    with pytest.raises(PanelError) as caught:
        await stage.start(interface(**config), [])
    assert (caught.value.status, caught.value.text) == (503, text)


async def test_what_a_wireguard_backend_does_not_offer(stage: Stage) -> None:
    await stage.start(interface(), [])
    sentence = "a WIREGUARD backend has no routing rules and no balancers: start the node with XRAY for these"
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/routing/rules", None),
        ("PUT", "/routing/rules", pb.AddRoutingRuleRequest(rule="{}")),
        ("DELETE", "/routing/rules", pb.RemoveRoutingRuleRequest(rule_tag="x")),
        ("POST", "/routing/balancer", pb.BalancerInfoRequest(tag="x")),
        ("PUT", "/routing/balancer/override", pb.OverrideBalancerTargetRequest(balancer_tag="x", target="y")),
        ("POST", "/routing/test", pb.TestRouteRequest()),
    ]
    for method, path, message in calls:
        with pytest.raises(PanelError) as caught:
            await stage.panel.call(method, path, message, pb.Empty)
        assert (caught.value.status, caught.value.code, caught.value.text) == (501, "UNIMPLEMENTED", sentence), path
    with pytest.raises(PanelError) as caught:
        await stage.panel.call("GET", "/stats/latency", None, pb.LatencyResponse)
    assert (caught.value.status, caught.value.text) == (503, "xray outbound latency is not available")


async def test_users_come_back_with_a_new_core_and_a_new_supervisor(stage: Stage) -> None:
    """A core that is killed, a supervisor that is killed, and a full set of 5,000."""
    config = interface(address=["10.66.0.1/16", "fd66::1/64"])
    many = [peer(str(number), addresses(number), key=f"key {number}") for number in range(2, 5_002)]
    await stage.start(config, many[:1])
    await stage.panel.sync_users(many)
    assert len(await stage.listed()) == 5_000
    pid = core_pid(stage.node)
    async with stage.client(config, many[0], many[-1], keys=("key 2", "key 5001")) as client:
        await client.move("2", 1_000, 2_000)
        await client.move("5001", 3_000, 4_000)
        await stage.counted("2", 1_000, 2_000)

        await stage.node.stop(signal.SIGKILL)
        await stage.node.start()

        async def taken_over() -> bool:
            return (await stage.panel.info()).started

        await eventually(taken_over, "the core is taken over")
        assert core_pid(stage.node) == pid
        await client.move("5001", 1_000, 1_000)
        await stage.counted("5001", 4_000, 5_000)

        os.kill(pid, signal.SIGKILL)

        async def another() -> bool:
            return (await stage.panel.info()).running and core_pid(stage.node) not in (0, pid)

        await eventually(another, "another core runs")
        assert len(await stage.listed()) == 5_000
    async with stage.client(config, many[-1], keys=("key 5001",)) as client:
        await client.move("5001", 1_000, 1_000)
        await stage.counted("5001", 5_000, 6_000)


async def test_from_xray_to_wireguard_and_back(stage: Stage) -> None:
    user = make_user("117", ["VLESS", "wg0"])
    user.proxies.wireguard.CopyFrom(peer("117", addresses(2)).proxies.wireguard)
    xray, config = make_config([make_inbound("VLESS", "vless")]), interface()
    assert (await stage.panel.start(xray, [user])).core_type == "xray"
    info = await stage.start(config, [user])
    assert (info.core_type, await stage.listed()) == ("wireguard", {"117"})
    assert (await stage.panel.start(xray, [user])).core_type == "xray"
    assert set(await inbound_users(stage.node.run_dir / "core.sock", "VLESS")) == {"117"}


async def test_an_xray_backend_with_a_wireguard_inbound_has_users_in_it(stage: Stage) -> None:
    """Its own peers are the node's users, and a user has accounts in other inbounds beside."""
    panel = interface()
    inbound = {
        "tag": "wg0",
        "listen": "127.0.0.1",
        "port": panel["listen_port"],
        "protocol": "wireguard",
        "settings": {
            "secretKey": panel["private_key"],
            "preSharedKey": panel["pre_shared_key"],
            "address": panel["address"],
            "peers": [],
        },
    }
    config = make_config([make_inbound("VLESS", "vless"), inbound])
    config["outbounds"][0] |= way_out(stage.target.port)
    user = peer("217", addresses(2))
    await stage.panel.start(config, [])
    await stage.panel.sync_user(changed(user, inbounds=["VLESS", "wg0"]))
    async with stage.client(panel, user) as client:
        await client.move("217", 10_000, 20_000)
        await stage.counted("217", 10_000, 20_000)
    assert set(await inbound_users(stage.node.run_dir / "core.sock", "VLESS")) == {"217"}
    await stage.panel.sync_user(changed(user, inbounds=["VLESS"]))
    assert await stage.listed() == set()


@pytest.mark.skipif(bool(missing()), reason=f"a client with a network device needs {missing()}")
async def test_a_client_that_is_not_the_core(stage: Stage) -> None:
    """wireguard-go with a network device, over which the kernel makes the connections."""
    config, user = interface(), peer("317", addresses(2))
    await stage.start(config, [user])
    async with WireguardGo.client(config, user, TARGET_HOST):
        reader, writer = await asyncio.open_connection(TARGET_HOST, stage.target.port)
        writer.write(request(Mode.MOVE, 50_000, 400_000) + bytes(50_000 - REQUEST_BYTES))
        received = 0
        async with asyncio.timeout(60):
            while block := await reader.read(65_536):
                received += len(block)
        writer.close()
        assert received == 400_000
        await stage.counted("317", 50_000, 400_000)
