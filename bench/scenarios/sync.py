"""Single changes: PUT /user/sync, one user in each call, beside GET /info on the same connections.

Two halves of 5,000 users: one in one inbound, the other in five. Every call of a "changed key" row changes that user's key, since
the requests are two passes with different keys, sent over and over.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

from bench.load import Requests, Side, compare
from bench.registry import Bench, scenario
from bench.report import Figure, Row, at_least, below
from bench.samples import share_of
from bench.scenarios.transport import bare_rate
from bench.servers import node, started
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.panel import PROTOBUF, PanelClient
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb

USERS = 5_000
#: Inbounds whose users the core changes one by one; Shadowsocks-2022 is not among them, it is replaced as a whole.
PROTOCOLS = {"VLESS": "vless", "VMess": "vmess", "Trojan": "trojan", "Shadowsocks": "shadowsocks", "VLESS 2": "vless"}
TAGS = list(PROTOCOLS)


#: Connections -> aims: a share of what the parts make (see :func:`parts`) for changed users, of GET /info for unchanged ones.
AIMS = {32: (0.7, 0.5), 128: (0.9, 0.7)}
#: One caller, one user after the other: the median has to stay below this.
ALONE_AIM_MS = 4.0


def parts(info_per_second: float, bare_per_second: float, core_calls: int) -> float:
    """The rate that a change would have if it cost a GET /info and its core calls, and nothing else."""
    return 1 / (1 / info_per_second + core_calls / bare_per_second)


@scenario("sync", "PUT /user/sync, one user a call; r = 1 / (1 / GET /info + core calls / bare AlterInbound rate)")
async def sync(bench: Bench) -> AsyncGenerator[Row, None]:
    bench.say("AlterInbound with nothing else running")
    bare = await bare_rate(bench)
    one, five = make_users(USERS, TAGS[:1], name="one"), make_users(USERS, TAGS, name="five")
    config = make_config(make_inbound(tag, protocol) for tag, protocol in PROTOCOLS.items())
    bench.say(f"starting a node with {2 * USERS:,} users in {len(TAGS)} inbounds")
    async with node(bench) as beside, beside.panel() as panel, contextlib.AsyncExitStack() as stack:
        await started(bench, panel, config, one + five)
        still = make_users(USERS // 10, TAGS, name="still")
        await panel.sync_chunked(still)

        def side(requests: Sequence[bytes]) -> Side:
            return Side(beside.port, stack.enter_context(Requests(requests)))

        sides = {
            "info": side([panel.head("GET", "/info", {})]),
            "unchanged": side(sync_requests(panel, still)),
            "1 inbound": side(sync_requests(panel, two_passes("one", TAGS[:1]))),
            "5 inbounds": side(sync_requests(panel, two_passes("five", TAGS))),
        }
        for connections, (changed_aim, unchanged_aim) in AIMS.items():
            bench.say(f"PUT /user/sync and GET /info, {connections} connections")
            found = await compare(sides, connections=connections, seconds=bench.seconds, rounds=bench.rounds)
            info = found["info"]
            yield Row(
                f"unchanged users, 5 inbounds, {connections} connections",
                found["unchanged"].figures,
                info.figures,
                "GET /info",
                at_least(share_of(found["unchanged"].per_second, info.per_second), unchanged_aim, "of GET /info"),
                found["unchanged"].faults,
            )
            for what, inbounds in (("1 inbound", 1), ("5 inbounds", len(TAGS))):
                # In each inbound the old account is removed and the new one added.
                limit = parts(info.per_second, bare, 2 * inbounds)
                yield Row(
                    f"a changed key each, {what}, {connections} connections",
                    found[what].figures,
                    [Figure(limit, "/s")],
                    "r",
                    at_least(share_of(found[what].per_second, limit), changed_aim, "r"),
                    found[what].faults,
                )
        bench.say("PUT /user/sync, one caller")
        alone = await compare({"": sides["1 inbound"]}, connections=1, seconds=bench.seconds, rounds=bench.rounds)
        yield Row(
            "a changed key each, 1 inbound, one caller alone",
            [Figure(alone[""].p50_ms, "ms", "p50"), *alone[""].figures],
            aim=below(alone[""].p50_ms, ALONE_AIM_MS, "ms"),
            note=alone[""].faults,
        )


def two_passes(name: str, tags: Sequence[str]) -> list[pb.User]:
    """All users with one new key, then all with another."""
    return [user for key in ("a", "b") for user in make_users(USERS, tags, name=name, key=key)]


def sync_requests(panel: PanelClient, users: Sequence[pb.User]) -> list[bytes]:
    """PUT /user/sync for each, as the panel sends it."""
    requests = []
    for user in users:
        body = user.SerializeToString()
        head = panel.head("PUT", "/user/sync", {"Content-Type": PROTOBUF, "Content-Length": str(len(body))})
        requests.append(head + body)
    return requests
