"""WireGuard by the core: how much goes through one peer and eight, what a gigabyte costs, and what many peers cost a connection.

Clients are cores with a WireGuard outbound in user space. They, the target and the node share the machine's processors, so rates
are those of all together, while processor time is the core's own. Beside it, where ``wireguard-go`` is on the PATH and this user
may make network devices: the same clients through wireguard-go, whose connections the kernel ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.moving_users import cpu_seconds
from bench.registry import Bench, scenario
from bench.report import Figure, Row
from bench.samples import median, turns
from bench.servers import core_pid, node
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import REQUEST_BYTES, Target
from pgnode.testing.traffic import ClientCore
from pgnode.testing.wireguard import TARGET_HOST, addresses, interface, peer, way_out, wireguard_link
from pgnode.testing.wireguard_go import WireguardGo
from pgnode.wire import service_pb2 as pb

#: Bytes that all streams of a turn move together.
TURN_BYTES = 40_000_000
STREAMS = (1, 8)
#: Peers of the inbound, for the cost of a new connection; and how many connections are made.
PEERS = (10, 1_000, 10_000, 50_000)
CONNECTIONS = 300
#: Users who are removed, for what that costs.
REMOVED = 90
#: Connections that are made at a time.
TOGETHER = 10


@scenario(
    "wireguard", "WireGuard by the core: rate, time for a gigabyte, new connections", timeout_seconds=300, default=False
)
async def wireguard(bench: Bench) -> AsyncGenerator[Row, None]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgnwg")))
        target = await stack.enter_async_context(Target("0.0.0.0"))
        outbound = folder / "outbound.json"
        outbound.write_text(json.dumps(way_out(target.port)))
        beside = await stack.enter_async_context(node(bench, WG_EGRESS_OUTBOUND_FILE=str(outbound)))
        config, users = interface(address=["10.66.0.1/16", "fd66::1/64"]), await asyncio.to_thread(_users)
        async with beside.panel() as panel:
            for number, count in enumerate(PEERS):
                bench.say(f"new connections with {count:,} peers")
                info = await panel.start(config, users[:count], backend_type=pb.WIREGUARD)
                bench.facts["core"] = f"Xray {info.core_version}"
                # Another one each time: a port that was in use a minute ago is refused where it comes from the same address.
                async with _client(config, [users[number]], target) as client:
                    await client.move(users[number].email, REQUEST_BYTES, 1)
                    yield await _connections(beside, client, count)
                if count > 10 * REMOVED:
                    yield await _removals(beside, panel, users[count - REMOVED : count], count)
            # Another core: to take most users out of this one again takes it minutes.
            config = interface()
            await panel.start(config, users[:8], backend_type=pb.WIREGUARD)
        sides = {"node": Side(core_pid(beside), await stack.enter_async_context(_client(config, users[:8], target)))}
        if os.geteuid() == 0 and shutil.which("wireguard-go"):
            other = await stack.enter_async_context(WireguardGo.server(interface(), users[:8], f"{TARGET_HOST}/24"))
            clients = await stack.enter_async_context(_client(other.config, users[:8], target))
            sides["wireguard-go"] = Side(other.pid, clients)
        for direction in ("up", "down"):
            for streams in STREAMS:
                bench.say(f"{direction}, {streams} peers")
                yield await _rates(bench, sides, direction, streams)


def _users() -> list[pb.User]:
    return [peer(str(number), addresses(number)) for number in range(2, PEERS[-1] + 2)]


@asynccontextmanager
async def _client(config: dict[str, Any], users: list[pb.User], target: Target) -> AsyncIterator[ClientCore]:
    links = [wireguard_link(config, user) for user in users]
    async with ClientCore(links, target, target_host=TARGET_HOST) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Side:
    """Who ends the tunnels, and clients with a peer each."""

    pid: int
    client: ClientCore

    async def move(self, direction: str, streams: int) -> tuple[float, float]:
        """Move TURN_BYTES through so many peers; return Gbit/s, and seconds of processor time for a gigabyte."""
        each = TURN_BYTES // streams
        up, down = (each, 1) if direction == "up" else (REQUEST_BYTES, each)
        before, begun = cpu_seconds(self.pid), time.monotonic()
        names = list(self.client.links)[:streams]
        await asyncio.gather(*(self.client.move(name, up, down) for name in names))
        seconds = time.monotonic() - begun
        return TURN_BYTES * 8 / 1e9 / seconds, (cpu_seconds(self.pid) - before) * 1e9 / TURN_BYTES


async def _connections(beside: NodeProcess, client: ClientCore, peers: int) -> Row:
    """Make connections, some at a time, and look at the core's time for each."""
    [name] = client.links
    pid = core_pid(beside)
    before, begun = cpu_seconds(pid), time.monotonic()
    for _ in range(CONNECTIONS // TOGETHER):
        await asyncio.gather(*(client.move(name, REQUEST_BYTES, 1) for _ in range(TOGETHER)))
    seconds, cpu = time.monotonic() - begun, cpu_seconds(pid) - before
    return Row(
        f"new connections, {peers:,} peers",
        [Figure(cpu * 1000 / CONNECTIONS, "ms of the core each"), Figure(CONNECTIONS / seconds, "/s")],
    )


async def _removals(beside: NodeProcess, panel: PanelClient, users: list[pb.User], peers: int) -> Row:
    """Remove users in one call, and look at the core's time for each."""
    pid = core_pid(beside)
    gone = [pb.User(email=user.email, proxies=user.proxies) for user in users]
    before = cpu_seconds(pid)
    await panel.sync_chunked(gone)
    cost = (cpu_seconds(pid) - before) * 1000 / len(users)
    return Row(f"users removed, of {peers:,} peers", [Figure(cost, "ms of the core each")])


async def _rates(bench: Bench, sides: dict[str, Side], direction: str, streams: int) -> Row:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for name in turns(list(sides), bench.rounds):
        found[name].append(await sides[name].move(direction, streams))
    figures = {
        name: [
            Figure(median([rate for rate, _ in turns_]), "Gbit/s"),
            Figure(median([cost for _, cost in turns_]), "s/GB"),
        ]
        for name, turns_ in found.items()
    }
    what = f"{'upload' if direction == 'up' else 'download'}, {streams} peer{'s' if streams > 1 else ''}"
    return Row(what, figures["node"], figures.get("wireguard-go", ()), "wireguard-go")
