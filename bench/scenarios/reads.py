"""Reads: how much the node's own part costs on top of Gunicorn, TLS and Falcon.

Statistics are those of 10,000 users who all have moved bytes. A core counts a user from its first connection on, and ten thousand
connections would take longer than the measuring; so the node's ledger is filled through its store between two runs, and
from there on everything is the node's own work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from bench.load import Requests, Side, compare
from bench.registry import Bench, scenario
from bench.report import Row, at_least
from bench.servers import bare_app, node, started
from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database
from pgnode.store.rows import LedgerRow
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PROTOBUF, PanelClient
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb

USERS = 10_000
TAG = "VLESS"
AIM = 0.8
#: How long the node may take to serve the statistics it found in its store.
FILLED_SECONDS = 20.0


@scenario("reads", "GET beside a bare Falcon app that returns the same bytes on the same Gunicorn settings")
async def reads(bench: Bench) -> AsyncGenerator[Row, None]:
    users = make_users(USERS, [TAG])
    calls: dict[str, tuple[str, pb.StatRequest | None]] = {
        "GET /info": ("/info", None),
        "GET /stats/system": ("/stats/system", None),
        "GET /stats/backend": ("/stats/backend", None),
        "GET /stats, one user": ("/stats", pb.StatRequest(type=pb.UserStat, name=users[USERS // 2].email)),
        f"GET /stats, all of {USERS:,} users": ("/stats", pb.StatRequest(type=pb.UsersStat)),
    }
    async with node(bench) as beside:
        await fill_books(bench, beside, users)
        async with beside.panel() as panel:
            heads = {what: request_bytes(panel, path, message) for what, (path, message) in calls.items()}
            answers = {what: await _answer(panel, path, message) for what, (path, message) in calls.items()}
        paths = {what: f"/{number}" for number, what in enumerate(calls)}
        async with bare_app(beside, {paths[what]: body for what, body in answers.items()}) as bare_port:
            for what, (path, _) in calls.items():
                bench.say(what)
                request = heads[what]
                bare = request.replace(path.encode(), paths[what].encode(), 1)
                with Requests([request]) as ours, Requests([bare]) as theirs:
                    found = await compare(
                        {"pgnode": Side(beside.port, ours), "bare": Side(bare_port, theirs)},
                        connections=bench.connections,
                        seconds=bench.seconds,
                        rounds=bench.rounds,
                    )
                row = Row(what, found["pgnode"].figures, found["bare"].figures, "bare Falcon")
                yield Row(
                    f"{what} ({len(answers[what]):,} bytes)",
                    row.ours,
                    row.other,
                    row.other_name,
                    at_least(row.ratio, AIM, "of the bare app"),
                    note="; ".join(filter(None, (found["pgnode"].faults, found["bare"].faults))),
                )


def request_bytes(panel: PanelClient, path: str, message: pb.StatRequest | None) -> bytes:
    """A GET as the panel sends it; a message goes in its body."""
    if message is None:
        return panel.head("GET", path, {})
    body = message.SerializeToString()
    return panel.head("GET", path, {"Content-Type": PROTOBUF, "Content-Length": str(len(body))}) + body


async def _answer(panel: PanelClient, path: str, message: pb.StatRequest | None) -> bytes:
    body = None if message is None else message.SerializeToString()
    response = await panel.request("GET", path, body)
    if response.status != 200:
        raise RuntimeError(f"GET {path} is {response.status}: {response.body[:200]!r}")
    return response.body


async def fill_books(bench: Bench, beside: NodeProcess, users: list[pb.User]) -> None:
    """Start the node with the users, fill its ledger, run it again and wait until it serves them."""
    bench.say(f"starting a node with {USERS:,} users and filling its ledger")
    async with beside.panel() as panel:
        await started(bench, panel, make_config([make_inbound(TAG, "vless")]), users)
    counters: dict[str, LedgerRow | None] = {}
    for number, user in enumerate(users):
        for link, factor in (("uplink", 1_234_567), ("downlink", 23_456_789)):
            counters[f"user>>>{user.email}>>>traffic>>>{link}"] = LedgerRow(factor * (number + 1), 0, 0, 0)
    database = await asyncio.to_thread(Database.open, beside.state_dir / "state.db")
    await asyncio.to_thread(database.write, StoreChanges(counters=counters))
    await asyncio.to_thread(database.close)
    await beside.stop()
    await beside.start()
    async with beside.panel() as panel, asyncio.timeout(FILLED_SECONDS):
        while not await _filled(panel, len(counters)):  # noqa: ASYNC110 - no event comes from another process
            await asyncio.sleep(0.1)


async def _filled(panel: PanelClient, counters: int) -> bool:
    """Whether the node serves all of its counters, and the core runs; until then its answers may be errors."""
    request = pb.StatRequest(type=pb.UsersStat).SerializeToString()
    response = await panel.request("GET", "/stats", request)
    return response.status == 200 and len(pb.StatResponse.FromString(response.body).stats) == counters
