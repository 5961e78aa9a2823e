"""Fresh figures: how old what readers see is, while users move bytes all the time, and what that costs.

One user moves a block every :data:`PULSE_SECONDS`. Readers, 1,000 reads a second together, see how many of these blocks are
counted; a figure is as old as the first block that it lacks. 1,000 others move bytes as well, so that there is something to read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bench.moving_users import MovingUsers, cpu_seconds
from bench.moving_users_process import BLOCK_DOWN, BLOCK_UP
from bench.registry import Bench, scenario
from bench.report import Figure, Row, below
from bench.samples import percentile
from bench.servers import core_pid, node, started
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb

TAG = "VLESS"
#: Users -> the age that figures may have: what they are fresh for, and the wait of a caller.
AIMS = {10_000: 0.75, 100_000: 2.25}
ONLINE_USERS = 1_000
READERS, READS_PER_SECOND = 10, 1_000
PULSE_SECONDS = 0.1
#: Pulses of everybody else between two of the beacon's.
OTHERS_EVERY = 10
WINDOW_SECONDS = 10.0
CALL_TIMEOUT_SECONDS = 30.0


@scenario("fresh", "how old the figures are that readers see", timeout_seconds=240, default=False)
async def fresh(bench: Bench) -> AsyncGenerator[Row, None]:
    for count, aim_seconds in AIMS.items():
        yield await _row(bench, count, aim_seconds)


@dataclass
class Beacon:
    """When each block was moved, and how old what readers saw was."""

    moved_at: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    reads_ms: list[float] = field(default_factory=list)

    def saw(self, blocks: int, begun: float, now: float) -> None:
        """Note that a read which began then showed so many blocks."""
        self.reads_ms.append((now - begun) * 1000)
        if blocks < len(self.moved_at):
            # What was moved after the read began it could not show.
            self.ages.append(max(0.0, begun - self.moved_at[blocks]))
        else:
            self.ages.append(0.0)


async def _row(bench: Bench, count: int, aim_seconds: float) -> Row:
    users = make_users(count, [TAG])
    inbound = make_inbound(TAG, "vless")
    bench.say(f"starting a node with {count:,} users")
    async with AsyncExitStack() as stack:
        beside = await stack.enter_async_context(node(bench))
        panel = await stack.enter_async_context(beside.panel(timeout_seconds=CALL_TIMEOUT_SECONDS))
        await started(bench, panel, make_config([inbound]), users)
        others = await stack.enter_async_context(MovingUsers(inbound["port"], users[1 : ONLINE_USERS + 1]))
        beacon_user = await stack.enter_async_context(MovingUsers(inbound["port"], users[:1]))
        readers = [await stack.enter_async_context(beside.panel()) for _ in range(READERS)]
        bench.say(f"{ONLINE_USERS:,} of {count:,} users move bytes, {READS_PER_SECOND:,} reads a second")
        await others.hold(0, ONLINE_USERS)
        beacon = Beacon()
        await beacon_user.hold(0, 1)
        beacon.moved_at.append(time.monotonic())
        pids = {"supervisor": beside.pid, "core": core_pid(beside)}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        until = time.monotonic() + WINDOW_SECONDS
        await asyncio.gather(
            _pulse(beacon, beacon_user, others, until),
            *(_read(beacon, reader, users[0].email, until) for reader in readers),
        )
        used = {name: (cpu_seconds(pid) - before[name]) / WINDOW_SECONDS * 1000 for name, pid in pids.items()}
    p99 = percentile(beacon.ages, 0.99)
    return Row(
        f"one user of {count:,}, {len(beacon.ages) / WINDOW_SECONDS:,.0f} reads/s",
        [
            Figure(p99, "s", "age p99"),
            Figure(percentile(beacon.ages, 0.5), "s", "p50"),
            Figure(percentile(beacon.reads_ms, 0.99), "ms", "a read's p99"),
            Figure(used["supervisor"], "ms/s", "supervisor"),
            Figure(used["core"], "ms/s", "core"),
        ],
        aim=below(p99, aim_seconds, "s"),
    )


async def _pulse(beacon: Beacon, mover: MovingUsers, others: MovingUsers, until: float) -> None:
    number = 0
    while time.monotonic() < until:
        begun = time.monotonic()
        await mover.pulse()
        beacon.moved_at.append(time.monotonic())
        number += 1
        if number % OTHERS_EVERY == 0:
            await others.pulse()
        await asyncio.sleep(max(0.0, begun + PULSE_SECONDS - time.monotonic()))


async def _read(beacon: Beacon, reader: PanelClient, email: str, until: float) -> None:
    pause = READERS / READS_PER_SECOND
    while (begun := time.monotonic()) < until:
        stats = await reader.stats(pb.UserStat, email)
        beacon.saw(sum(stat.value for stat in stats) // (BLOCK_UP + BLOCK_DOWN), begun, time.monotonic())
        await asyncio.sleep(max(0.0, begun + pause - time.monotonic()))
