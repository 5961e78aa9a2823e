"""A fleet: one panel at its real pace against nodes that share this machine's processors, and what that means on paper.

The panel sends each change to each node in a call of its own, and asks every ten seconds for the statistics of all users and for
health. All users have moved bytes, so each reading brings all of them: the most that it can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

from bench.registry import Bench, scenario
from bench.report import Figure, Row
from bench.samples import percentile
from bench.scale_stage import seconds_of
from bench.scenarios.full import memory_mb
from bench.scenarios.reads import TAG, USERS, fill_books
from bench.servers import core_pid, node
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.processes import tree
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb

NODES = 4
#: A panel's pace: seconds between two changes of a node, and between two readings and two looks at its health.
CHANGE_SECONDS, POLL_SECONDS = 1.0, 10.0
#: For that long nodes are looked at, without a panel and with one.
LOOK_SECONDS = 20.0
SETTLE_SECONDS = 3.0
CALL_TIMEOUT_SECONDS = 60.0
#: On paper.
PAPER_USERS, PAPER_NODES = 1_000_000, 50
#: Each user is changed once a day: renewed, limited, expired.
CHANGES_A_SECOND = PAPER_USERS / 86_400


@scenario("fleet", f"one panel and {NODES} nodes with {USERS:,} users each", timeout_seconds=240, default=False)
async def fleet(bench: Bench) -> AsyncGenerator[Row, None]:
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(bench, GRPC_WORKERS="0")) for _ in range(NODES)]
        for one in nodes:
            await fill_books(bench, one, make_users(USERS, [TAG]))
        await asyncio.sleep(SETTLE_SECONDS)
        bench.say("no panel")
        alone = await looked(nodes, asyncio.sleep(LOOK_SECONDS))
        panels = [
            Panel(await stack.enter_async_context(one.panel(timeout_seconds=CALL_TIMEOUT_SECONDS))) for one in nodes
        ]
        bench.say("a panel at its pace")
        with_panel = await looked(nodes, at_pace(panels, LOOK_SECONDS))
        yield Row(
            "a node with a panel",
            with_panel.figures,
            alone.figures,
            "without",
        )
        added = with_panel.percent - alone.percent
        calls = sum(len(times) for panel in panels for times in panel.times.values())
        yield Row(
            "what the panel's connection costs a node",
            [
                Figure(added, "% of a processor"),
                Figure(calls / LOOK_SECONDS / NODES, "calls/s"),
                Figure(panels[0].answer_bytes / 1e6, "MB", "an answer with all users"),
            ],
        )
        for what in panels[0].times:
            times = [took * 1000 for panel in panels for took in panel.times[what]]
            yield Row(
                f"the panel's calls: {what}",
                [Figure(percentile(times, 0.5), "ms", "p50"), Figure(max(times), "ms", "longest")],
            )
        bench.say("changes without a pause")
        for panel in panels:
            panel.times.clear()
        begun = time.monotonic()
        seconds = 2 * bench.seconds
        hurried = await looked(nodes, hurry(panels, seconds))
        changes = sum(len(panel.times["a change"]) for panel in panels)
        took = time.monotonic() - begun
        cost = Cost(
            reading_ms=(added / 100 * POLL_SECONDS) * 1000,
            change_ms=(hurried.percent - alone.percent) / 100 * took * NODES / changes * 1000,
            answer_mb=panels[0].answer_bytes / 1e6,
        )
        yield Row(
            f"changes one after the other, {NODES} nodes at once",
            [
                Figure(changes / took, "/s"),
                Figure(changes / took / NODES, "/s", "each"),
                Figure(cost.change_ms, "ms of a processor", "a change"),
            ],
        )
        for row in on_paper(cost):
            yield row


@dataclass(frozen=True, slots=True)
class Cost:
    """What a node's processors are busy with; for USERS users on it."""

    #: A reading of all users, health and the changes of the pace.
    reading_ms: float
    change_ms: float
    answer_mb: float


def on_paper(cost: Cost) -> list[Row]:
    """A million users: a share on each node, or all on each. Pure."""
    rows = []
    for what, users, changes in (
        ("a share of them on each", PAPER_USERS / PAPER_NODES, CHANGES_A_SECOND / PAPER_NODES),
        ("all of them on each", float(PAPER_USERS), CHANGES_A_SECOND),
    ):
        reading = cost.reading_ms * users / USERS
        percent = reading / POLL_SECONDS / 10 + changes * cost.change_ms / 10
        answer = cost.answer_mb * users / USERS
        rows.append(
            Row(
                f"on paper: {PAPER_USERS:,} users over {PAPER_NODES} nodes, {what}",
                [
                    Figure(changes, "/s", "changes a node"),
                    Figure(percent, "% of a processor a node"),
                    Figure(changes * PAPER_NODES, "/s", "calls of the panel"),
                    Figure(answer * PAPER_NODES / POLL_SECONDS, "MB/s", "the panel reads"),
                ],
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class Looked:
    """What a node took, on average over all."""

    percent: float
    supervisor_percent: float
    memory: float

    @property
    def figures(self) -> list[Figure]:
        return [
            Figure(self.percent, "% of a processor"),
            Figure(self.supervisor_percent, "%", "supervisor"),
            Figure(self.memory, "MB"),
        ]


async def looked(nodes: list[NodeProcess], meanwhile: Awaitable[object]) -> Looked:
    """What all processes of the nodes take while something is done."""
    pids = {one.pid: [*(process.pid for process in tree(one.pid)), core_pid(one)] for one in nodes}
    before = {pid: seconds_of(pid) for of_node in pids.values() for pid in set(of_node)}
    begun = time.monotonic()
    await meanwhile
    seconds = time.monotonic() - begun
    taken = {pid: seconds_of(pid) - was for pid, was in before.items()}
    memory = 0.0
    for pid in taken:
        with contextlib.suppress(OSError):
            memory += memory_mb(pid)
    return Looked(
        sum(taken.values()) / seconds / len(nodes) * 100,
        sum(taken[one.pid] for one in nodes) / seconds / len(nodes) * 100,
        memory / len(nodes),
    )


@dataclass
class Panel:
    """The panel's side of one node."""

    client: PanelClient
    #: Kind of call -> seconds of each.
    times: dict[str, list[float]] = field(default_factory=dict)
    changes: int = 0
    answer_bytes: int = 0

    async def change(self) -> None:
        self.changes += 1
        user = make_user(f"user{self.changes % USERS}@demo", [TAG], key=str(self.changes))
        await self._timed("a change", lambda: self.client.sync_user(user))

    async def poll(self) -> None:
        await self._timed("statistics of all users", self._statistics)
        await self._timed("health", self.client.backend_stats)

    async def _statistics(self) -> None:
        request = pb.StatRequest(type=pb.UsersStat).SerializeToString()
        response = await self.client.request("GET", "/stats", request)
        if response.status != 200:
            raise RuntimeError(f"GET /stats is {response.status}: {response.body[:200]!r}")
        self.answer_bytes = len(response.body)

    async def _timed(self, what: str, call: Callable[[], Awaitable[object]]) -> None:
        begun = time.monotonic()
        await call()
        self.times.setdefault(what, []).append(time.monotonic() - begun)


async def at_pace(panels: list[Panel], seconds: float) -> None:
    """The panel, for so long; its nodes do not all have their turn in the same moment."""

    async def one(panel: Panel, number: int) -> None:
        offset = number / len(panels)
        end = time.monotonic() + seconds
        next_change = time.monotonic() + offset * CHANGE_SECONDS
        next_poll = time.monotonic() + offset * POLL_SECONDS
        while (now := min(next_change, next_poll)) < end:
            await asyncio.sleep(max(0.0, now - time.monotonic()))
            if next_change <= next_poll:
                next_change += CHANGE_SECONDS
                await panel.change()
            else:
                next_poll += POLL_SECONDS
                await panel.poll()
        await asyncio.sleep(max(0.0, end - time.monotonic()))

    await asyncio.gather(*(one(panel, number) for number, panel in enumerate(panels)))


async def hurry(panels: list[Panel], seconds: float) -> None:
    """Changes without a pause, one after the other on each node."""
    end = time.monotonic() + seconds

    async def one(panel: Panel) -> None:
        while time.monotonic() < end:
            await panel.change()

    await asyncio.gather(*map(one, panels))
