"""Scale: many API workers on four hosts against one supervisor and one Redis, and what it costs when parts of that go.

Hosts are namespaces of this machine where that is possible (:mod:`bench.hosts`), so all of them share its processors: what is
shown is what each process takes, and what goes through Redis; a time is that of a machine that does all of it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import statistics
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.hosts import Host
from bench.registry import Bench, scenario
from bench.report import Figure, Row, none_of
from bench.samples import percentile
from bench.scale_model import Line, bottleneck, fitted
from bench.scale_stage import HOSTS, SETTLE_SECONDS, Stage, share, stage
from bench.scenarios.full import memory_mb
from bench.scenarios.reads import TAG, USERS, request_bytes
from bench.scenarios.sync import sync_requests, two_passes
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb

#: For that long idle processes are looked at: what they take is told in hundredths of a second.
IDLE_SECONDS = 10.0
#: So many users move bytes before all statistics are read.
MOVING = 200
ALL_USERS = pb.StatRequest(type=pb.UsersStat).SerializeToString()
#: For that long Redis is away.
AWAY_SECONDS = 1.0
#: Until everything is as before.
BACK_SECONDS = 30.0
#: Workers for which the model is read out.
ON_PAPER = 1_000


@scenario("scale", f"API workers on {HOSTS} hosts, one supervisor, one Redis", timeout_seconds=300, default=False)
async def scale(bench: Bench) -> AsyncGenerator[Row, None]:
    counts = sorted({max(HOSTS, count) for count in bench.scale})
    async with stage(bench) as made:
        bench.facts["hosts"] = f"{HOSTS}, {made.hosts.kind}"
        seen: dict[int, Idle] = {}
        for count in counts:
            bench.say(f"{count} workers")
            await made.have(count)
            seen[count] = idle = await idle_of(made)
            yield idle.row(f"{count} workers, idle")
            async for row in work_of(made, count):
                yield row
        if len(counts) > 1:
            for row in modelled(seen):
                yield row
        async for row in faults(made, counts[-1]):
            yield row


@dataclass(frozen=True, slots=True)
class Idle:
    """What workers take while nobody calls."""

    worker_mb: float
    worker_percent: float
    supervisor_percent: float
    redis_percent: float
    redis_kb: float
    redis_commands: float

    def row(self, what: str) -> Row:
        return Row(
            what,
            [
                Figure(self.worker_mb, "MB", "each"),
                Figure(self.worker_percent, "% of a processor", "each"),
                Figure(self.supervisor_percent, "%", "supervisor"),
                Figure(self.redis_percent, "%", "Redis"),
                Figure(self.redis_kb, "KB/s", "through Redis"),
                Figure(self.redis_commands, "commands/s"),
            ],
        )

    @property
    def by_workers(self) -> dict[str, float]:
        """What grows with the number of workers."""
        return {
            "supervisor, %": self.supervisor_percent,
            "Redis, %": self.redis_percent,
            "through Redis, KB/s": self.redis_kb,
            "commands/s": self.redis_commands,
        }


def modelled(seen: dict[int, Idle]) -> list[Row]:
    """What the smaller runs say of the largest one beside what was measured, and of a thousand workers."""
    largest = max(seen)
    rows, lines = [], {}
    for name, measured in seen[largest].by_workers.items():
        of_smaller = [(float(count), idle.by_workers[name]) for count, idle in seen.items() if count != largest]
        all_points = [(float(count), idle.by_workers[name]) for count, idle in seen.items()]
        lines[name] = line = fitted(all_points)
        before = fitted(of_smaller).at(largest) if len(of_smaller) > 1 else float("nan")
        rows.append(
            Row(
                f"model: {name} = {line.fixed:.3g} + {line.each:.3g} a worker",
                [Figure(line.at(ON_PAPER), "", f"{ON_PAPER:,} workers:")],
                [Figure(measured, ""), Figure(before, "", "the smaller runs say")],
                f"measured with {largest}",
            )
        )
    rows.append(first_full({name: line for name, line in lines.items() if name.endswith("%")}))
    return rows


def first_full(lines: dict[str, Line]) -> Row:
    name, workers = bottleneck(lines)
    return Row(
        f"model: the bottleneck is {name.removesuffix(', %')}, whose processor is full of idle workers' signs of life",
        [Figure(workers, "workers", "with")],
        [Figure(lines[name].at(ON_PAPER), "%")],
        f"with {ON_PAPER:,}",
    )


async def idle_of(made: Stage) -> Idle:
    pids = made.worker_pids
    before = await made.looked(pids)
    await asyncio.sleep(IDLE_SECONDS)
    after = await made.looked(pids)
    seconds = after.at - before.at
    memory = statistics.mean(memory_mb(pid) for pid in pids)
    return Idle(
        memory,
        (after.workers - before.workers) / seconds * 100 / len(pids),
        (after.supervisor - before.supervisor) / seconds * 100,
        (after.redis - before.redis) / seconds * 100,
        (after.redis_bytes - before.redis_bytes) / seconds / 1e3,
        (after.commands - before.commands) / seconds,
    )


async def work_of(made: Stage, count: int) -> AsyncIterator[Row]:
    """Reads, changes, and what a reset of the statistics makes all workers fetch."""
    async with made.panel(made.hosts.hosts[0]) as panel:
        read = request_bytes(panel, "/info", None)
        changes = sync_requests(panel, two_passes("scale", [TAG]))
    pids = made.worker_pids
    for what, requests, connections in (
        ("GET /info", [read], 8),
        ("PUT /user/sync, one caller a host", changes, 1),
    ):
        before = await made.looked(pids)
        results = await made.on_all(requests, connections)
        after = await made.looked(pids)
        answers = sum(result.answers for result in results)
        sent = sum(result.sent for result in results)
        yield Row(
            f"{count} workers, {what}",
            [
                Figure(answers / results[0].seconds, "/s"),
                Figure(statistics.median(result.p50_ms for result in results), "ms", "p50"),
                Figure(max(result.p99_ms for result in results), "ms", "p99"),
                Figure((after.workers - before.workers) / sent * 1e3, "ms of a worker"),
                Figure((after.redis_bytes - before.redis_bytes) / sent / 1e3, "KB through Redis"),
            ],
            note=", ".join(filter(None, (result.first_refusal for result in results))),
        )
    await made.movers.move(0, MOVING)
    before = await made.looked(pids)
    took, size = [], 0
    for host in made.hosts.hosts:
        async with made.panel(host) as panel:
            begun = time.monotonic()
            size = len((await panel.request("GET", "/stats", ALL_USERS)).body)
            took.append(time.monotonic() - begun)
    await asyncio.sleep(SETTLE_SECONDS)
    after = await made.looked(pids)
    yield Row(
        f"{count} workers, GET /stats of {USERS:,} users on each host once, when {MOVING} have moved bytes",
        [
            Figure((after.redis_bytes - before.redis_bytes) / 1e6, "MB through Redis"),
            Figure(max(took), "s", "longest"),
            Figure(size / 1e6, "MB", "an answer"),
        ],
    )


# --- What happens when parts go -------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """One caller of a host: one change after the other, and a read after each."""

    panel: PanelClient
    name: str
    #: When each answered change ended, and how long it took.
    changes: list[tuple[float, float]] = field(default_factory=list)
    reads: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    failed_reads: int = 0

    async def run(self, done: asyncio.Event) -> None:
        number = 0
        while not done.is_set():
            number += 1
            user = make_user(f"watch-{self.name}@demo", [TAG], key=str(number))
            await self._timed(lambda user=user: self.panel.sync_user(user), self.changes, reads=False)  # type: ignore[misc]
            await self._timed(self.panel.info, self.reads, reads=True)
            await asyncio.sleep(0.02)

    async def _timed(
        self, call: Callable[[], Awaitable[object]], into: list[tuple[float, float]], *, reads: bool
    ) -> None:
        begun = time.monotonic()
        try:
            await call()
        except (PanelError, NoAnswerError, OSError, TimeoutError) as error:
            if reads:
                self.failed_reads += 1
            else:
                self.failed.append(str(error)[:80])
        else:
            now = time.monotonic()
            into.append((now, now - begun))


async def faults(made: Stage, count: int) -> AsyncIterator[Row]:
    """Half of the workers, Redis and the supervisor, one after the other, while every host has a caller."""
    half = made.hosts.hosts[: HOSTS // 2]

    async def die() -> float:
        before = await made.alive()
        for host in half:
            await host.die()
        begun = time.monotonic()
        for number in range(len(half)):
            await made.hosts.back(number)
            await made.start_on(made.hosts.hosts[number], share(count, number))
        await made.wait_for(count, dying, before)
        return time.monotonic() - begun

    dying = sum(share(count, number) for number in range(len(half)))

    async def away() -> float:
        await made.redis.kill()
        await asyncio.sleep(AWAY_SECONDS)
        begun = time.monotonic()
        await made.redis.start()
        await made.wait_for(count)
        return time.monotonic() - begun

    async def restart() -> float:
        begun = time.monotonic()
        made.node.output.clear()
        made.node.send_signal(signal.SIGUSR2)
        async with asyncio.timeout(BACK_SECONDS):
            while not any("state loaded" in line for line in made.node.output):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        return time.monotonic() - begun

    others = made.hosts.hosts[HOSTS // 2 :]
    for what, fault, callers, back in (
        (f"{dying} of {count} workers die at once; callers of the other hosts", die, others, "all back"),
        (
            f"Redis is killed, and back empty after {AWAY_SECONDS:g} s; {count} workers",
            away,
            made.hosts.hosts,
            "all back",
        ),
        (f"the supervisor restarts in place; {count} workers", restart, made.hosts.hosts, "store loaded"),
    ):
        made.bench.say(what)
        yield await watched(made, what, fault, callers, back)


async def watched(
    made: Stage, what: str, fault: Callable[[], Awaitable[float]], callers: Sequence[Host], back: str
) -> Row:
    """A fault while hosts have callers."""
    async with contextlib.AsyncExitStack() as stack:
        watches = [
            Watch(await stack.enter_async_context(made.panel(host)), host.address.rpartition(".")[2])
            for host in callers
        ]
        done = asyncio.Event()
        tasks = [asyncio.create_task(watch.run(done)) for watch in watches]
        await asyncio.sleep(1.0)
        begun = time.monotonic()
        back_after = await fault()
        await asyncio.sleep(1.0)
        done.set()
        await asyncio.gather(*tasks)
    gaps = [longest_gap([at for at, _ in watch.changes], begun) for watch in watches]
    calls = [took * 1000 for watch in watches for at, took in watch.changes if at >= begun]
    failed = [text for watch in watches for text in watch.failed]
    return Row(
        what,
        [
            Figure(max(gaps), "s", "longest without an answered change"),
            Figure(percentile(calls, 0.99), "ms", "p99"),
            Figure(len(failed), "changes answered with an error"),
            Figure(sum(watch.failed_reads for watch in watches), "reads failed"),
            Figure(back_after, "s", back),
        ],
        aim=none_of(sum(watch.failed_reads for watch in watches), "reads failed"),
        note=failed[0] if failed else "",
    )


def longest_gap(times: Sequence[float], begun: float) -> float:
    """The longest time between two answers one after the other, of which the later one came after ``begun``. Pure."""
    pairs = itertools.pairwise(times)
    return max((later - earlier for earlier, later in pairs if later >= begun), default=float("inf"))
