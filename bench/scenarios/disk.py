"""Disk: bytes that the node's processes send towards the disk in a minute.

The kernel counts a page when it becomes dirty (``write_bytes`` of ``/proc/PID/io``), so a page that is written again before it
went to the disk counts once. Each figure is of a window of :data:`WINDOW_SECONDS`, scaled to a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from bench.moving_users import MovingUsers, descendants, disk_bytes
from bench.registry import Bench, scenario
from bench.report import Figure, Row, below
from bench.servers import core_pid, node, started
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.users import make_users

TAG = "VLESS"
USERS, MANY_USERS, ONLINE_USERS = 1_000, 100_000, 1_000
#: Connections a second while the access log is on, begun in so many batches a second.
CONNECTIONS, BATCHES = 600, 10
#: How often each user online moves a block.
PULSE_SECONDS = 2.0
WINDOW_SECONDS = 25.0
#: Before a window: what a start or so many new users cost is not meant.
SETTLE_SECONDS = 8.0
CALL_TIMEOUT_SECONDS = 30.0
#: MB in a minute.
IDLE_AIM_MB, CONNECTIONS_AIM_MB, ONLINE_AIM_MB = 0.2, 2.0, 10.0


@scenario("disk", "what the node writes to the disk, in a minute", timeout_seconds=240, default=False)
async def disk(bench: Bench) -> AsyncGenerator[Row, None]:
    async with stage(bench, USERS, access_log=True) as made:
        yield await made.window(f"nothing moves, {USERS:,} users", asyncio.sleep, IDLE_AIM_MB)
        what = f"{CONNECTIONS} connections a second, access log on"
        yield await made.window(what, made.connect, CONNECTIONS_AIM_MB)
    async with stage(bench, MANY_USERS, access_log=False) as made:
        bench.say(f"{MANY_USERS:,} users move bytes")
        await made.movers.move(0, MANY_USERS)
        await made.movers.hold(0, ONLINE_USERS)
        what = f"{ONLINE_USERS:,} of {MANY_USERS:,} users online, each moves a block every {PULSE_SECONDS:g} s"
        yield await made.window(what, made.pulse, ONLINE_AIM_MB)


@contextlib.asynccontextmanager
async def stage(bench: Bench, count: int, *, access_log: bool) -> AsyncIterator[Stage]:
    """A node with so many users, of whom none has moved anything."""
    users = make_users(count, [TAG])
    inbound = make_inbound(TAG, "vless")
    config = make_config([inbound])
    if not access_log:
        config["log"]["access"] = "none"
    bench.say(f"starting a node with {count:,} users")
    async with node(bench) as beside, beside.panel(timeout_seconds=CALL_TIMEOUT_SECONDS) as panel:
        await started(bench, panel, config, users)
        async with MovingUsers(inbound["port"], users) as movers:
            yield Stage(beside, movers, count, bench.say)


@dataclass
class Stage:
    """A node, its users, and what its processes write."""

    node: NodeProcess
    movers: MovingUsers
    users: int
    say: Callable[[str], None]

    async def window(self, what: str, load: Callable[[float], Awaitable[None]], aim_mb: float) -> Row:
        """Measure while ``load`` goes on, which takes its seconds."""
        self.say(what)
        await asyncio.sleep(SETTLE_SECONDS)
        processes = {"supervisor": [self.node.pid], **descendants(self.node.pid), "core": [core_pid(self.node)]}
        before = {name: sum(map(disk_bytes, pids)) for name, pids in processes.items()}
        begun = time.monotonic()
        await load(WINDOW_SECONDS)
        minutes = (time.monotonic() - begun) / 60
        written = {
            name: (sum(map(disk_bytes, pids)) - before[name]) / 1e6 / minutes for name, pids in processes.items()
        }
        total = sum(written.values())
        names = {"supervisor": "supervisor", "store": "Valkey", "workers": "workers", "core": "core"}
        return Row(
            what,
            [
                Figure(total, "MB/min"),
                *(Figure(written[of], "MB/min", name) for of, name in names.items() if of in written),
            ],
            aim=below(total, aim_mb, "MB/min"),
            note="" if any(before.values()) else "the state folder is not on a disk: nothing is counted",
        )

    async def connect(self, seconds: float) -> None:
        """CONNECTIONS a second, users in turn."""
        size = CONNECTIONS // BATCHES
        begun = time.monotonic()
        for number in range(round(seconds * BATCHES)):
            await self.movers.move(number * size % (self.users - size), size)
            await asyncio.sleep(max(begun + (number + 1) / BATCHES - time.monotonic(), 0))

    async def pulse(self, seconds: float) -> None:
        """Everybody online moves a block, again and again."""
        begun = time.monotonic()
        for number in range(round(seconds / PULSE_SECONDS)):
            await self.movers.pulse()
            await asyncio.sleep(max(begun + (number + 1) * PULSE_SECONDS - time.monotonic(), 0))
