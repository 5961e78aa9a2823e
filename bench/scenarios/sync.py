"""Single changes: PUT /user/sync, one user in each call, beside GET /info on the same connections.

Two halves of 5,000 users: one in one inbound, the other in five. Every call of a "changed key" row changes that user's key, since
the requests are two passes with different keys, sent over and over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from bench.load import Requests, Side, compare
from bench.registry import Bench, scenario
from bench.report import Row
from bench.servers import node, started
from pgnode.demo import people
from pgnode.demo.panel import PROTOBUF, PanelClient
from pgnode.wire import service_pb2 as pb

USERS = 5_000
#: Inbounds whose users the core changes one by one; Shadowsocks-2022 is not among them, it is replaced as a whole.
PROTOCOLS = {"VLESS": "vless", "VMess": "vmess", "Trojan": "trojan", "Shadowsocks": "shadowsocks", "VLESS 2": "vless"}
TAGS = list(PROTOCOLS)


@scenario("sync", "PUT /user/sync, one user a call, beside GET /info on the same node")
async def sync(bench: Bench) -> AsyncGenerator[Row, None]:
    one, five = people.crowd(USERS, TAGS[:1], name="one"), people.crowd(USERS, TAGS, name="five")
    config = people.config(people.inbound(tag, protocol) for tag, protocol in PROTOCOLS.items())
    bench.say(f"starting a node with {2 * USERS:,} users in {len(TAGS)} inbounds")
    async with node(bench) as beside, beside.panel() as panel:
        await started(bench, panel, config, one + five)
        rows = {
            "PUT /user/sync, unchanged users, 5 inbounds": five,
            "PUT /user/sync, a changed key each, 1 inbound": two_passes("one", TAGS[:1]),
            "PUT /user/sync, a changed key each, 5 inbounds": two_passes("five", TAGS),
        }
        for what, users in rows.items():
            bench.say(what)
            with Requests(sync_requests(panel, users)) as puts, Requests([panel.head("GET", "/info", {})]) as gets:
                found = await compare(
                    {"sync": Side(beside.port, puts), "info": Side(beside.port, gets)},
                    connections=bench.connections,
                    seconds=bench.seconds,
                    rounds=bench.rounds,
                )
            yield Row(what, found["sync"].figures, found["info"].figures, "GET /info", note=found["sync"].faults)


def two_passes(name: str, tags: Sequence[str]) -> list[pb.User]:
    """All users with one new key, then all with another."""
    return [user for key in ("a", "b") for user in people.crowd(USERS, tags, name=name, key=key)]


def sync_requests(panel: PanelClient, users: Sequence[pb.User]) -> list[bytes]:
    """PUT /user/sync for each, as the panel sends it."""
    requests = []
    for user in users:
        body = user.SerializeToString()
        head = panel.head("PUT", "/user/sync", {"Content-Type": PROTOBUF, "Content-Length": str(len(body))})
        requests.append(head + body)
    return requests
