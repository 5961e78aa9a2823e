"""Full sets: PUT /users/sync of 10,000 users while some of them keep transfers going.

The time is that of the call alone, with the message made before. A transfer sends a block through the core every 20 ms
and waits for it to come back: its longest wait is the longest silence.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Sequence

from bench.registry import Bench, scenario
from bench.report import Figure, Row, below, none_of
from bench.samples import median
from bench.servers import node, started
from pgnode.demo import people
from pgnode.demo.panel import PanelClient
from pgnode.demo.target import Target
from pgnode.demo.traffic import ClientCore, HeldTransfer, link
from pgnode.wire import service_pb2 as pb

USERS = 10_000
#: Users at the head of the list, whose keys stay as they are, who hold transfers: half of them over each protocol.
HELD = 8
PROTOCOLS = {"VLESS": "vless", "Trojan": "trojan"}
#: Share of users with a changed key -> aim in seconds, None where there is none.
SHARES: dict[float, float | None] = {0.0: None, 0.01: 1.0, 0.5: None}
CALL_TIMEOUT_SECONDS = 30.0


@scenario("full", f"PUT /users/sync of {USERS:,} users in {len(PROTOCOLS)} inbounds, {HELD} transfers held")
async def full(bench: Bench) -> AsyncGenerator[Row, None]:
    tags = list(PROTOCOLS)
    inbounds = [people.inbound(tag, protocol) for tag, protocol in PROTOCOLS.items()]
    users = people.crowd(USERS, tags)
    bench.say(f"starting a node with {USERS:,} users")
    async with node(bench) as beside, beside.panel() as panel, Target() as target:
        await started(bench, panel, people.config(inbounds), users)
        links = [
            link(inbounds[number % len(inbounds)], users[number], source_address=f"127.0.0.{number + 2}")
            for number in range(HELD)
        ]
        async with ClientCore(links, target) as client, contextlib.AsyncExitStack() as stack:
            for share, limit_seconds in SHARES.items():
                # Encoded beforehand: it would hold up the loop that the transfers run in.
                bodies = [encoded_set(users, share, f"{share}/{number}") for number in range(bench.rounds)]
                bench.say(f"PUT /users/sync, {share:.0%} changed")
                held = [await stack.enter_async_context(client.hold(name)) for name in client.links]
                seconds = [await _sync(panel, body, held) for body in bodies]
                silence_ms = max(transfer.longest_silence_seconds for transfer in held) * 1000
                broken = [transfer for transfer in held if transfer.broken is not None]
                took = median(seconds)
                aim = none_of(len(broken), "dropped")
                yield Row(
                    f"PUT /users/sync, {USERS:,} users, {share:.0%} changed ({len(bodies[0]) / 1e6:.1f} MB)",
                    [
                        Figure(took, "s"),
                        Figure(len(broken), "dropped"),
                        Figure(silence_ms, "ms", "longest silence"),
                    ],
                    aim=aim if limit_seconds is None else below(took, limit_seconds, "s") & aim,
                    note="; ".join(f"{transfer.link_name} {transfer.broken}" for transfer in broken),
                )
                await stack.aclose()


def encoded_set(users: list[pb.User], share: float, key: str) -> bytes:
    """A ``Users`` message of ``users``, ``share`` of them with keys made from ``key``; ``users`` is brought up to date.

    Those who hold transfers keep theirs; the changed ones are spread over the rest of the list.
    """
    count = round(share * len(users))
    step = (len(users) - HELD) / max(count, 1)
    for number in range(count):
        at = HELD + int(number * step)
        users[at] = people.user(users[at].email, users[at].inbounds, key=key)
    return pb.Users(users=users).SerializeToString()


async def _sync(panel: PanelClient, body: bytes, held: Sequence[HeldTransfer]) -> float:
    """Seconds that one full set takes, with every transfer going before and after."""
    begun = time.monotonic()
    response = await panel.request("PUT", "/users/sync", body, timeout_seconds=CALL_TIMEOUT_SECONDS)
    took = time.monotonic() - begun
    if response.status != 200:
        raise RuntimeError(f"PUT /users/sync is {response.status}: {response.body[:200]!r}")
    for transfer in held:
        if transfer.broken is None:
            with contextlib.suppress(Exception):
                await transfer.wait_rounds(2)
    return took
