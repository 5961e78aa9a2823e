"""Churn: what a new connection costs with the access log on, and what a line of the log costs by itself.

Connections come through a plain VLESS inbound, a fixed number a second, and each moves a block both ways
(:mod:`bench.moving_users_process`). Processor time is that of all threads of each process, in nanoseconds, from the kernel;
what the node uses while nothing happens is taken off. The other side is the same core with the same config, whose output nobody
reads; there are two of them, and how far they are apart is what this machine cannot tell.

Lines by themselves are written into the core's pipe, one at a time as the core writes them, while the core itself rests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.moving_users import MovingUsers, cpu_seconds, descendants
from bench.registry import Bench, scenario
from bench.report import Figure, Row, below
from bench.samples import median, turns
from bench.servers import BareCore, bare_core, core_pid, node, started
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_users
from pgnode.xray.process.run_folder import FIFO_NAME

USERS, TAG = 100, "VLESS"
#: Connections a second, in so many batches: as many as come on a busy node of this size.
CONNECTIONS, BATCHES = 500, 20
#: Lines a second that are written into the pipe: those of a busy node, and a flood.
RATES = (1_000, 20_000)
WINDOW_SECONDS = 5.0
SETTLE_SECONDS = 1.0
#: Microseconds of a connection over the bare core; of a line with nobody watching, and with one viewer.
CONNECTION_AIM, UNWATCHED_AIM, WATCHED_AIM = 10.0, 3.0, 10.0
#: The sides whose core serves connections.
NODE, BARE = "node", ("bare", "bare again")
#: As the core writes them; a number makes each another one.
LINE = b"2026/11/30 04:20:07.%06d from 127.0.0.23:51234 accepted tcp:127.0.1.5:40321 [VLESS >> DIRECT] email: user%d@bench\n"


@scenario(
    "churn", f"{CONNECTIONS} connections a second with the access log on, and lines of the log", timeout_seconds=400
)
async def churn(bench: Bench) -> AsyncGenerator[Row, None]:
    async with stage(bench) as made:
        for row in await made.connections(bench.rounds):
            yield row
        for rate in RATES:
            yield await made.lines(rate, bench.rounds, watched=False)
            yield await made.lines(rate, bench.rounds, watched=True)


@contextlib.asynccontextmanager
async def stage(bench: Bench) -> AsyncIterator[Stage]:
    """A node, and two bare cores beside it with the config that the node's core runs."""
    users = make_users(USERS, [TAG])
    inbound = make_inbound(TAG, "vless")
    bench.say(f"starting a node with {USERS} users")
    with tempfile.TemporaryDirectory(prefix="pgnbench") as folder:
        copy = Path(folder, "config.json")
        async with node(bench, GENERATED_CONFIG_PATH=str(copy)) as beside, beside.panel() as panel:
            await started(bench, panel, make_config([inbound]), users)
            config = json.loads(await asyncio.to_thread(copy.read_text, encoding="utf-8"))
            async with contextlib.AsyncExitStack() as stack:
                bares = {name: await stack.enter_async_context(bare_core(config)) for name in BARE}
                ports = {NODE: inbound["port"]} | {name: bare.ports[TAG] for name, bare in bares.items()}
                movers = {
                    name: await stack.enter_async_context(MovingUsers(port, users)) for name, port in ports.items()
                }
                yield Stage(beside, panel, bares, movers, bench.say)


@dataclass(slots=True)
class Viewer:
    """A caller who watches the log, and counts what comes."""

    panel: PanelClient
    lines: int = 0
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch meanwhile."""
        connection = await self.panel.connect()
        try:
            connection.send(self.panel.head("GET", "/logs", {}))
            await connection.read_head(self.panel.timeout_seconds)

            async def read() -> None:
                async for chunk in connection.read_chunks():
                    self.lines += chunk.count(b"\n")

            self._task = asyncio.create_task(read())
            yield
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            await connection.close()


#: Microseconds by process.
Costs = dict[str, float]


@dataclass
class Stage:
    """A node, bare cores, and users of each, by side."""

    node: NodeProcess
    panel: PanelClient
    bares: dict[str, BareCore]
    movers: dict[str, MovingUsers]
    say: Callable[[str], None]

    async def connections(self, rounds: int) -> list[Row]:
        """The node with nobody watching, with a viewer, and the bare cores, in turns."""
        found: dict[str, list[Costs]] = {name: [] for name in ("unwatched", *BARE, "watched")}
        for name, movers in self.movers.items():
            self.say(f"connections that are not counted, {name}")  # a core's first ones cost it more
            await self._connect(movers)()
        for side in turns(list(found), rounds):
            self.say(f"connections, {side}")
            viewer = Viewer(self.panel).watching() if side == "watched" else contextlib.nullcontext()
            processes = {"core": [self.bares[side].pid]} if side in BARE else self.processes
            async with viewer:
                load = self._connect(self.movers[side if side in BARE else NODE])
                found[side].append(await self._cost(processes, load))
        bares = [_medians(found[name])["core"] for name in BARE]
        bare, apart = sum(bares) / len(bares), max(bares) - min(bares)
        rows = []
        for name, what in (("unwatched", "nobody watching"), ("watched", "one viewer")):
            costs = _medians(found[name])
            over = sum(costs.values()) - bare
            rows.append(
                Row(
                    f"a connection with the access log on, {what}: CPU",
                    [Figure(sum(costs.values()), "µs"), *_figures(costs)],
                    [Figure(bare, "µs"), Figure(apart, "µs", "one bare core from the other")],
                    "bare core",
                    below(over, CONNECTION_AIM, f"µs over the bare core; {over:.1f}") if name == "unwatched" else None,
                )
            )
        return rows

    async def lines(self, rate: int, rounds: int, *, watched: bool) -> Row:
        """Lines in the core's pipe, so many a second."""
        processes = {name: pids for name, pids in self.processes.items() if name != "core"}
        found, seen, written = [], 0, 0
        for number in range(rounds):
            what = "one viewer" if watched else "nobody watching"
            self.say(f"{rate:,} lines a second, {what}, round {number + 1}")
            viewer = Viewer(self.panel)
            async with viewer.watching() if watched else contextlib.nullcontext():
                await asyncio.sleep(SETTLE_SECONDS)
                replayed = viewer.lines
                found.append(await self._cost(processes, self._write(rate)))
                seen, written = seen + viewer.lines - replayed, written + round(rate * WINDOW_SECONDS)
        costs = _medians(found)
        total = sum(costs.values())
        figures = [Figure(total, "µs"), *_figures(costs)]
        if watched:
            figures.append(Figure(100 * seen / written, "%", "seen"))
        return Row(
            f"a line of the log at {rate:,}/s, {'one viewer' if watched else 'nobody watching'}: CPU of the node",
            figures,
            aim=below(total, WATCHED_AIM if watched else UNWATCHED_AIM, "µs"),
        )

    async def _cost(self, processes: dict[str, list[int]], load: Callable[[], Awaitable[int]]) -> Costs:
        """Microseconds of each process for each thing that ``load`` does, beyond what it uses while nothing happens."""

        def used() -> Costs:
            return {name: sum(map(cpu_seconds, pids)) for name, pids in processes.items()}

        async def measure(work: Awaitable[int]) -> tuple[int, float, Costs]:
            before, begun = used(), time.monotonic()
            count = await work
            seconds = time.monotonic() - begun
            return count, seconds, {name: now - before[name] for name, now in used().items()}

        await asyncio.sleep(SETTLE_SECONDS)
        _, idle_seconds, idle = await measure(_nothing())
        count, seconds, busy = await measure(load())
        return {name: (busy[name] - idle[name] / idle_seconds * seconds) / count * 1e6 for name in busy}

    def _connect(self, movers: MovingUsers) -> Callable[[], Awaitable[int]]:
        """Connections at their rate, users in turn."""

        async def load() -> int:
            size, done = CONNECTIONS // BATCHES, 0
            begun = time.monotonic()
            for number in range(round(WINDOW_SECONDS * BATCHES)):
                await movers.move(number * size % USERS, size)
                done += size
                await asyncio.sleep(max(begun + (number + 1) / BATCHES - time.monotonic(), 0))
            return done

        return load

    def _write(self, rate: int) -> Callable[[], Awaitable[int]]:
        """Lines at their rate."""

        async def load() -> int:
            count = round(rate * WINDOW_SECONDS)
            await asyncio.to_thread(write_lines, self.fifo, rate, count)
            await asyncio.sleep(SETTLE_SECONDS)
            return count

        return load

    @property
    def processes(self) -> dict[str, list[int]]:
        """Pids by what they are."""
        core = core_pid(self.node)
        found = descendants(self.node.pid)
        return {"core": [core], "supervisor": [self.node.pid], "workers": found["workers"], "store": found["store"]}

    @property
    def fifo(self) -> Path:
        return self.node.run_dir / FIFO_NAME


def write_lines(fifo: Path, rate: int, count: int) -> None:
    """Write lines into a core's pipe, one at a time as the core does; waits where it is full. For a thread."""
    descriptor = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
    try:
        begun, written = time.monotonic(), 0
        while written < count:
            due = min(count, int((time.monotonic() - begun) * rate) + 1)
            for number in range(written, due):
                os.write(descriptor, LINE % (number % 1_000_000, number % USERS))
            written = due
            time.sleep(0.001)
    finally:
        os.close(descriptor)


async def _nothing() -> int:
    await asyncio.sleep(WINDOW_SECONDS)
    return 0


def _medians(found: list[Costs]) -> Costs:
    return {name: median([costs[name] for costs in found]) for name in found[0]}


def _figures(costs: Costs) -> list[Figure]:
    return [Figure(value, "µs", {"store": "Valkey"}.get(name, name)) for name, value in costs.items()]
