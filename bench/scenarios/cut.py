"""Cut: what others notice while the connections of many users end who were removed at once.

A node has 20,000 connections through a plain VLESS inbound, or as many as the limit of open files allows; of 20,000, 1,000 users
with 3 connections each are removed by one full set. Meanwhile others move a block each way again and again: the longest time in
which one of them waited for its block is shown, beside the same before the change. The lines of all these connections are in the
node's memory (LOG_BUFFER_SIZE).
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncGenerator

from bench.moving_users import MovingUsers
from bench.registry import Bench, scenario
from bench.report import Figure, Row, below, none_of
from bench.servers import core_pid, node, started
from pgnode.os_support.tcp_counts import open_connections
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.users import make_users

TAG = "VLESS"
#: Connections in all, and of each user who is removed; these are one in so many.
CONNECTIONS, EACH, SHARE = 20_000, 3, 20
#: Open files that the core has for each connection, and the users' process, which is their target, too; and for all else.
FILES_EACH, OTHER_FILES = 2, 2_000
#: Connections that are opened together, and the pause after them.
BURST, BURST_SECONDS = 20, 0.01
#: Those who move something all the time.
PROBES = 50
#: Seconds that are looked at before the change.
BEFORE_SECONDS = 5.0
#: Seconds in which all must have ended, and milliseconds that nobody else may wait.
ENDS_SECONDS, SILENCE_AIM = 30.0, 50.0


@scenario(
    "cut",
    f"users with {EACH} connections each are removed among up to {CONNECTIONS:,} connections",
    timeout_seconds=300,
    default=False,
)
async def cut(bench: Bench) -> AsyncGenerator[Row, None]:
    connections = _connections()
    gone = connections // SHARE
    others = connections - gone * EACH
    users = make_users(PROBES + others + gone, [TAG])
    stay, inbound = users[: PROBES + others], make_inbound(TAG, "vless")
    async with node(bench, LOG_BUFFER_SIZE="100000") as beside, beside.panel() as panel:
        await started(bench, panel, make_config([inbound]), users)
        port = inbound["port"]
        async with MovingUsers(port, users[:PROBES]) as probes, MovingUsers(port, users[PROBES:]) as held:
            bench.say(f"opening {connections:,} connections")
            await _hold(held, 0, others)
            for _ in range(EACH):
                await _hold(held, others, gone)
            await probes.hold(0, PROBES)
            pid = await asyncio.to_thread(core_pid, beside)
            before = await _open(pid, port)
            quiet = await _longest(probes, BEFORE_SECONDS)
            bench.say("removing them")
            pulses = asyncio.create_task(_longest_until(probes, ending := asyncio.Event()))
            begun = time.monotonic()
            await panel.sync_users(stay)
            answered = time.monotonic()
            left = await _open(pid, port)
            while left > before - gone * EACH and time.monotonic() < answered + ENDS_SECONDS:
                await asyncio.sleep(0.05)
                left = await _open(pid, port)
            ended = time.monotonic()
            ending.set()
            silence = await pulses
            still = left - (before - gone * EACH)
            yield Row(
                f"longest wait of others for a block, {gone * EACH:,} of {before:,} connections end",
                [Figure(1000 * silence, "ms")],
                [Figure(1000 * quiet, "ms")],
                "before the change",
                below(1000 * silence, SILENCE_AIM, "ms"),
            )
            yield Row(
                "from the answer until all of them have ended",
                [Figure(ended - answered, "s"), Figure(answered - begun, "s", "the change itself")],
                aim=none_of(abs(still), "connections too many or too few ended"),
            )


def _connections() -> int:
    """Return how many connections are held: as many as are wanted, or as the limit of open files allows."""
    wanted = CONNECTIONS * FILES_EACH + OTHER_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        # Root may have more than the limit says.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, wanted), max(hard, wanted)))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return min(CONNECTIONS, (hard - OTHER_FILES) // FILES_EACH)
    return CONNECTIONS


async def _open(pid: int, port: int) -> int:
    return (await asyncio.to_thread(open_connections, pid, {port})).get(port, 0)


async def _hold(users: MovingUsers, first: int, count: int) -> None:
    """Open connections no faster than the core writes lines about them: it drops some where sixteen wait."""
    for number in range(first, first + count, BURST):
        await users.hold(number, min(BURST, first + count - number))
        await asyncio.sleep(BURST_SECONDS)


async def _longest(probes: MovingUsers, seconds: float) -> float:
    """Have the others move blocks for some time; return the longest time that one of these took."""
    end, longest = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        longest = max(longest, await probes.pulse())
    return longest


async def _longest_until(probes: MovingUsers, ending: asyncio.Event) -> float:
    """Do the same until an event is set."""
    longest = 0.0
    while not ending.is_set():
        longest = max(longest, await probes.pulse())
    return longest
