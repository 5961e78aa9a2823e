"""Full sets: PUT /users/sync of 10,000 users while some of them keep transfers going.

The time is that of the call alone, with the message made before. A transfer sends a block through the core every 20 ms
and waits for it to come back: its longest wait is the longest silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.moving_users import descendants
from bench.registry import Bench, scenario
from bench.report import Figure, Row, below, none_of
from bench.samples import median, percentile
from bench.servers import node, started
from pgnode.supervisor.users.swap_policy import SWAP_PAUSE_SECONDS
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb

USERS = 10_000
#: Users at the head of the list, whose keys stay as they are, who hold transfers: half of them over each protocol.
HELD = 8
PROTOCOLS = {"VLESS": "vless", "Trojan": "trojan"}
#: Share of users with a changed key -> aim in seconds.
SHARES = {0.0: 0.1, 0.01: 0.15, 0.5: 0.6}
#: The same for a hundred thousand users.
MANY_USERS = 100_000
MANY_SHARES = {0.0: 0.8, 0.01: 1.0, 0.5: 4.0}
#: A delta of so many users, and its aim.
DELTA_USERS, DELTA_AIM_SECONDS = 300, 0.1
#: The longest wait of a transfer while users change.
SILENCE_AIM_MS = 150.0
#: Single changes while a full set of MANY_USERS is taken in.
SINGLE_AIM_SECONDS = 1.0
#: The supervisor's memory with MANY_USERS in MEMORY_INBOUNDS, at first and after MEMORY_SETS full sets.
MEMORY_AIM_MB, MEMORY_INBOUNDS, MEMORY_SETS = 250.0, 5, 10
#: What a message took is given back a moment after its answer.
SETTLE_SECONDS = 2.0
CALL_TIMEOUT_SECONDS = 30.0


@scenario("full", f"PUT /users/sync of {USERS:,} users in {len(PROTOCOLS)} inbounds, {HELD} transfers held")
async def full(bench: Bench) -> AsyncGenerator[Row, None]:
    users = make_users(USERS, list(PROTOCOLS))
    async with held_node(bench, users) as stage:
        bench.say(f"PUT /users/sync/chunked, {DELTA_USERS} users")
        deltas = []
        for number in range(bench.rounds):
            at = range(HELD + number, len(users), len(users) // DELTA_USERS)
            for index in at:
                users[index] = make_user(users[index].email, users[index].inbounds, key=f"delta {number}")
            deltas.append([users[index] for index in at])
        yield await stage.row(
            f"PUT /users/sync/chunked, {DELTA_USERS} of {USERS:,} users",
            [partial(stage.panel.sync_chunked, delta) for delta in deltas],
            DELTA_AIM_SECONDS,
        )
        for share, limit_seconds in SHARES.items():
            yield await stage.full_set(users, share, limit_seconds, bench.rounds)
        bench.say(f"the last one, {SWAP_PAUSE_SECONDS:g} s apart")
        share = max(SHARES)
        yield await stage.full_set(users, share, SHARES[share], bench.rounds, pause_seconds=SWAP_PAUSE_SECONDS)


@scenario(
    "full-many", f"the same with {MANY_USERS:,} users, others calling meanwhile", timeout_seconds=240, default=False
)
async def full_many(bench: Bench) -> AsyncGenerator[Row, None]:
    users = make_users(MANY_USERS, list(PROTOCOLS))
    async with held_node(bench, users) as stage:
        for share, limit_seconds in MANY_SHARES.items():
            yield await stage.full_set(users, share, limit_seconds, min(bench.rounds, 2))
        for share in MANY_SHARES:
            bench.say(f"others calling while {share:.0%} change")
            async for row in meanwhile(bench, stage, users, share):
                yield row


async def meanwhile(bench: Bench, stage: Stage, users: list[pb.User], share: float) -> AsyncGenerator[Row, None]:
    """Others calling, one after the other each, while a set is taken in and applied."""
    body = encoded_set(users, share, f"meanwhile {share}")
    async with stage.node.panel() as first, stage.node.panel() as second, stage.node.panel() as third:
        keys = map(str, itertools.count())
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "PUT /user/sync": lambda: first.sync_user(make_user("single@demo", list(PROTOCOLS), key=next(keys))),
            "GET /info": second.info,
            "GET /stats/backend": third.backend_stats,
        }
        done = asyncio.Event()
        tasks = {name: asyncio.create_task(_latencies(call, done)) for name, call in calls.items()}
        await asyncio.sleep(bench.seconds)
        begun = time.monotonic()
        await _sync(stage.panel, body)
        ended = time.monotonic()
        done.set()
        for name, task in tasks.items():
            samples = await task
            during = [took * 1000 for at, took in samples if at <= ended and at + took >= begun]
            before = [took * 1000 for at, took in samples if at + took < begun]
            yield Row(
                f"{name} by one caller, while {share:.0%} change",
                [Figure(percentile(during, 0.99), "ms", "p99"), Figure(max(during), "ms", "longest")],
                [Figure(percentile(before, 0.99), "ms", "p99")],
                "before",
                below(max(during) / 1000, SINGLE_AIM_SECONDS, "s") if name.startswith("PUT") else None,
            )


@scenario(
    "memory",
    f"the supervisor with {MANY_USERS:,} users in {MEMORY_INBOUNDS} inbounds, before and after {MEMORY_SETS} full sets",
    timeout_seconds=240,
    default=False,
)
async def memory(bench: Bench) -> AsyncGenerator[Row, None]:
    inbounds = [make_inbound(f"VLESS {number}", "vless") for number in range(MEMORY_INBOUNDS)]
    users = make_users(MANY_USERS, [inbound["tag"] for inbound in inbounds])
    async with node(bench) as beside, beside.panel() as panel:
        bench.say(f"starting a node with {MANY_USERS:,} users")
        await started(bench, panel, make_config(inbounds), users)
        await asyncio.sleep(SETTLE_SECONDS)
        [valkey] = descendants(beside.pid)["store"]
        at_first, of_valkey = memory_mb(beside.pid), memory_mb(valkey)
        for number in range(MEMORY_SETS):
            bench.say(f"full set {number + 1} of {MEMORY_SETS}")
            await _sync(panel, encoded_set(users, 0.01, str(number)))
        await asyncio.sleep(SETTLE_SECONDS)
        after = memory_mb(beside.pid)
        together = max(at_first + of_valkey, after + memory_mb(valkey))
        yield Row(
            f"memory of the supervisor, {MANY_USERS:,} users",
            [Figure(at_first, "MB", "at first"), Figure(after, "MB", "after the sets")],
            aim=below(max(at_first, after), MEMORY_AIM_MB, "MB"),
        )
        yield Row(
            f"memory of supervisor and Valkey, {MANY_USERS:,} users",
            [Figure(together, "MB", "the larger of both"), Figure(memory_mb(valkey), "MB", "Valkey after the sets")],
        )


def memory_mb(pid: int) -> float:
    """A process's proportional set size: what it shares with others counts in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("smaps_rollup has no Pss")


async def _latencies(call: Callable[[], Awaitable[object]], done: asyncio.Event) -> list[tuple[float, float]]:
    """(when it began, seconds) of one call after another until ``done``."""
    found = []
    while not done.is_set():
        begun = time.monotonic()
        await call()
        found.append((begun, time.monotonic() - begun))
    return found


@dataclass
class Stage:
    """A node with users, some of whom hold transfers."""

    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    say: Callable[[str], None]

    async def full_set(
        self, users: list[pb.User], share: float, limit_seconds: float, rounds: int, *, pause_seconds: float = 0.0
    ) -> Row:
        """Full sets at once after each other, or with a pause in front of each, so that an inbound may be swapped every time."""
        self.say(f"PUT /users/sync, {share:.0%} changed")
        # Encoded beforehand: it would hold up the loop that the transfers run in.
        bodies = [encoded_set(users, share, f"{share}/{number}/{pause_seconds}") for number in range(rounds)]
        apart = f", {pause_seconds:g} s apart" if pause_seconds else ""
        return await self.row(
            f"PUT /users/sync, {len(users):,} users, {share:.0%} changed ({len(bodies[0]) / 1e6:.1f} MB){apart}",
            [partial(_sync, self.panel, body) for body in bodies],
            limit_seconds,
            pause_seconds,
        )

    async def row(
        self,
        what: str,
        calls: Sequence[Callable[[], Awaitable[object]]],
        limit_seconds: float,
        pause_seconds: float = 0.0,
    ) -> Row:
        """The median time of these calls, with every transfer going before and after each."""
        async with contextlib.AsyncExitStack() as stack:
            held = [await stack.enter_async_context(self.client.hold(name)) for name in self.client.links]
            seconds = []
            for call in calls:
                await asyncio.sleep(pause_seconds)
                begun = time.monotonic()
                await call()
                seconds.append(time.monotonic() - begun)
                for transfer in held:
                    if transfer.broken is None:
                        with contextlib.suppress(Exception):
                            await transfer.wait_rounds(2)
            silence_ms = max(transfer.longest_silence_seconds for transfer in held) * 1000
            broken = [transfer for transfer in held if transfer.broken is not None]
        took = median(seconds)
        return Row(
            what,
            [Figure(took, "s"), Figure(len(broken), "dropped"), Figure(silence_ms, "ms", "longest silence")],
            aim=below(took, limit_seconds, "s")
            & none_of(len(broken), "dropped")
            & below(silence_ms, SILENCE_AIM_MS, "ms silence"),
            note="; ".join(f"{transfer.link_name} {transfer.broken}" for transfer in broken),
        )


@contextlib.asynccontextmanager
async def held_node(bench: Bench, users: list[pb.User]) -> AsyncIterator[Stage]:
    """Starts a node with ``users``; the first HELD of them have links to it."""
    inbounds = [make_inbound(tag, protocol) for tag, protocol in PROTOCOLS.items()]
    bench.say(f"starting a node with {len(users):,} users")
    async with node(bench) as beside, beside.panel() as panel, Target() as target:
        await started(bench, panel, make_config(inbounds), users)
        links = [
            link(inbounds[number % len(inbounds)], users[number], source_address=f"127.0.0.{number + 2}")
            for number in range(HELD)
        ]
        async with ClientCore(links, target) as client:
            yield Stage(beside, panel, client, bench.say)


def encoded_set(users: list[pb.User], share: float, key: str) -> bytes:
    """A ``Users`` message of ``users``, ``share`` of them with keys made from ``key``; ``users`` is brought up to date.

    Those who hold transfers keep theirs; the changed ones are spread over the rest of the list.
    """
    count = round(share * len(users))
    step = (len(users) - HELD) / max(count, 1)
    for number in range(count):
        at = HELD + int(number * step)
        users[at] = make_user(users[at].email, users[at].inbounds, key=key)
    return pb.Users(users=users).SerializeToString()


async def _sync(panel: PanelClient, body: bytes) -> None:
    response = await panel.request("PUT", "/users/sync", body, timeout_seconds=CALL_TIMEOUT_SECONDS)
    if response.status != 200:
        raise RuntimeError(f"PUT /users/sync is {response.status}: {response.body[:200]!r}")
