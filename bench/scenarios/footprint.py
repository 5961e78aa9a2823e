"""Footprint: what a node takes of its host's memory, at the default settings and in the way for small machines.

Memory is the proportional set size of all processes of the node: what they share counts once, what they share with processes of
others (the interpreter, libraries) in parts. A core that somebody else runs beside it makes these figures smaller.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass

import psutil

from bench.moving_users import MovingUsers, MovingUsersError
from bench.registry import Bench, scenario
from bench.report import Figure, Row, below
from bench.scenarios.full import memory_mb
from bench.servers import started
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb

TAG = "VLESS"
USERS, MANY_USERS = 10_000, 100_000
#: Way -> its settings.
DEFAULT, SMALL = "default settings", "WEB_CONCURRENCY=1 GRPC_WORKERS=0"
WAYS: Mapping[str, Mapping[str, str]] = {DEFAULT: {}, SMALL: {"WEB_CONCURRENCY": "1", "GRPC_WORKERS": "0"}}
#: Way -> MB without a core.
IDLE_AIMS_MB = {DEFAULT: 140.0, SMALL: 90.0}
#: Users -> MB after load, core included.
LOADED_AIMS_MB = {USERS: 220.0, MANY_USERS: 550.0}
#: Until what a start, or the reading of all counters, took for a moment is given back.
SETTLE_SECONDS = 5.0
#: How long the node may take to have counted what was moved.
SEEN_SECONDS = 60.0
CALL_TIMEOUT_SECONDS = 60.0


@scenario("footprint", "memory of all of a node's processes", timeout_seconds=180, default=False)
async def footprint(bench: Bench) -> AsyncGenerator[Row, None]:
    for way, settings in WAYS.items():
        async with stage(bench, way, settings) as made:
            async for row in made.rows(USERS):
                yield row


@scenario("footprint-many", f"the same with {MANY_USERS:,} users", timeout_seconds=240, default=False)
async def footprint_many(bench: Bench) -> AsyncGenerator[Row, None]:
    async with stage(bench, DEFAULT, WAYS[DEFAULT]) as made:
        async for row in made.rows(MANY_USERS):
            yield row


@contextlib.asynccontextmanager
async def stage(bench: Bench, way: str, settings: Mapping[str, str]) -> AsyncIterator[Stage]:
    """A node in one of the ways, without a core."""
    bench.say(f"a node with {way}")
    async with NodeProcess(env=settings) as node, node.panel(timeout_seconds=CALL_TIMEOUT_SECONDS) as panel:
        yield Stage(bench, way, node, panel)


@dataclass
class Stage:
    """A node, and how it was set up."""

    bench: Bench
    way: str
    node: NodeProcess
    panel: PanelClient

    async def rows(self, count: int) -> AsyncIterator[Row]:
        """Without a core, with one, and after all users have moved bytes and were asked for."""
        idle = await self._row("no core", IDLE_AIMS_MB[self.way])
        yield idle
        inbound = make_inbound(TAG, "vless")
        config = make_config([inbound])
        # A line for each connection is not what is measured.
        config["log"]["access"] = "none"
        await started(self.bench, self.panel, config, [])
        yield await self._row("a core, no users")
        users = make_users(count, [TAG])
        await started(self.bench, self.panel, config, users)
        yield await self._row(f"{count:,} users")
        self.bench.say(f"{count:,} users move bytes")
        async with MovingUsers(inbound["port"], users) as movers:
            await movers.move(0, count)
        await self._seen(count)
        yield await self._row(f"{count:,} users, after load", LOADED_AIMS_MB[count] if self.way == DEFAULT else None)

    async def _row(self, what: str, aim_mb: float | None = None) -> Row:
        await asyncio.sleep(SETTLE_SECONDS)
        found = {name: sum(map(memory_mb, pids)) for name, pids in processes(self.node.pid).items()}
        total = sum(found.values())
        return Row(
            f"{what}; {self.way}",
            [Figure(total, "MB"), *(Figure(size, "MB", name) for name, size in found.items())],
            aim=below(total, aim_mb, "MB") if aim_mb is not None else None,
        )

    async def _seen(self, count: int) -> None:
        """Wait until all users are in the statistics. MovingUsersError where that does not come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_SECONDS):
                while True:
                    names = {stat.name for stat in await self.panel.stats(pb.UsersStat)}
                    if len(names) == count:
                        return
                    await asyncio.sleep(1.0)
        raise MovingUsersError(f"not all of {count:,} users are in the statistics")


def processes(supervisor: int) -> dict[str, list[int]]:
    """A node's processes by what they are."""
    found: dict[str, list[int]] = {"supervisor": [supervisor]}
    for process in psutil.Process(supervisor).children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:  # it has just ended
            continue
        kinds = {"gunicorn": "Gunicorn and REST workers", "grpc_worker": "gRPC workers", "valkey": "Valkey"}
        name = next((name for part, name in kinds.items() if part in command), "core")
        found.setdefault(name, []).append(process.pid)
    return found
