"""The log in a flood: viewers see every line or are told how many they lost, and the bus has none while nobody watches.

Lines are written into the core's pipe, as the core writes them, each with a number.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest_asyncio
from grpc import aio

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.settings import Settings
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.connection import LogViewer
from pgnode.testing.node import NodeProcess
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb
from pgnode.xray.process.run_folder import FIFO_NAME
from tests.e2e.conftest import WITH_GRPC
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually
from tests.support.processes import kill, worker_pids

TAG = "VLESS"
RATE = 20_000
#: A viewer's queue holds as many, so one that reads loses none, however slow this machine is.
LINES = 40_000
#: 100 MB, far more than is held on the way to a viewer: by its queue, the buffers of its connection, the bus and the ring.
MANY_LINES, LONG_HOST = 250_000, "x" * 300
MIB = 1024 * 1024
LINE = "2026/11/30 10:00:00.000000 from 203.0.113.7:50123 accepted tcp:{}example.org:443 [VLESS >> DIRECT] email: flood-{}@e2e"
NUMBER = re.compile(r"email: flood-(\d+)@e2e$")
NOTICE = re.compile(r"^\[(\d+) lines (?:lost|dropped)")


@dataclass
class Stage:
    """A node whose core prints what the tests write."""

    node: NodeProcess
    written: int = 0

    async def write(self, count: int, rate: int = RATE, host: str = "") -> None:
        """Write so many lines into the core's pipe, so many a second; waits where it is full."""
        first, self.written = self.written, self.written + count
        await asyncio.to_thread(self._write, first, count, rate, host)

    def _write(self, first: int, count: int, rate: int, host: str) -> None:
        a_moment = threading.Event()
        descriptor = os.open(self.node.run_dir / FIFO_NAME, os.O_WRONLY | os.O_CLOEXEC)
        try:
            begun, done = time.monotonic(), 0
            while done < count:
                due = min(count, int((time.monotonic() - begun) * rate) + 1)
                for number in range(first + done, first + due):
                    os.write(descriptor, LINE.format(host, number).encode() + b"\n")
                done = due
                a_moment.wait(0.001)
        finally:
            os.close(descriptor)

    async def on_the_bus(self) -> int:
        """How many entries the stream of log lines has."""
        redis = connect(Settings(state_dir=self.node.state_dir).bus_url)
        try:
            return int(await redis.xlen(Keys("pgnode").log))
        finally:
            await redis.aclose()


@dataclass
class Seen:
    """What one viewer has seen."""

    numbers: list[int] = field(default_factory=list)
    told: int = 0

    def take(self, line: str) -> None:
        if (found := NUMBER.search(line)) is not None:
            self.numbers.append(int(found[1]))
        elif (notice := NOTICE.match(line)) is not None:
            self.told += int(notice[1])

    @property
    def missing(self) -> int:
        """Lines between the first and the last that it has not seen."""
        return self.numbers[-1] - self.numbers[0] + 1 - len(self.numbers)

    def check(self) -> None:
        """Each line once, in order; what is missing was told. The node's own lines may be among those that were lost."""
        assert self.numbers == sorted(set(self.numbers))
        assert 0 <= self.told - self.missing <= 20, (self.told, self.missing)


async def lines_of_rest(viewer: LogViewer) -> AsyncIterator[str]:
    with contextlib.suppress(EOFError, OSError):
        while True:
            yield await viewer.next_line(60)


async def lines_of_grpc(viewer: Any) -> AsyncIterator[str]:
    with contextlib.suppress(aio.AioRpcError):
        async for message in viewer:
            yield pb.Log.FromString(message).detail


def caller(node: NodeProcess) -> GrpcNode:
    return GrpcNode(f"{node.host}:{node.grpc_port}", node.api_key, node.ca_file.read_bytes())


async def watch(lines: AsyncIterator[str], last: int | None = None) -> Seen:
    """Look until a line comes, or until the node ends the log."""
    seen = Seen()
    async for line in lines:
        seen.take(line)
        if last is not None and seen.numbers[-1:] == [last]:
            break
    return seen


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    env = {**WITH_GRPC, "WEB_CONCURRENCY": "2", "LOG_FILE_MAX_MIB": "1"}
    async with NodeProcess(env=env) as node, node.panel() as panel:
        config = {**make_config([make_inbound(TAG, "vless")]), "log": {"access": "access.log"}}
        await panel.start(config, make_users(2, [TAG]))
        yield Stage(node)


async def test_while_nobody_watches_nothing_is_on_the_bus(stage: Stage) -> None:
    await stage.write(1000)
    last = LINE.format("", stage.written - 1)

    async def kept() -> bool:
        log = stage.node.state_dir / "logs" / "access.log"
        return log.exists() and last in log.read_text()

    await eventually(kept, "the node has read them")
    assert await stage.on_the_bus() == 0
    async with stage.node.panel() as panel, panel.logs() as viewer:
        # Who joins gets the last lines all the same, which nobody had sent anywhere.
        assert last in [await viewer.next_line(30) for _ in range(20)]
        await eventually(stage.on_the_bus, "lines go over the bus")

    async def cleared() -> bool:
        return await stage.on_the_bus() == 0

    await eventually(cleared, "they end with the last viewer")


async def test_viewers_who_join_in_a_flood_see_every_line(stage: Stage) -> None:
    before = stage.written
    flood = asyncio.create_task(stage.write(LINES))
    async with contextlib.AsyncExitStack() as stack:
        panel = await stack.enter_async_context(stage.node.panel())
        grpc = await stack.enter_async_context(caller(stage.node))
        await eventually(lambda: stage.written > before, "the flood has begun")
        last = stage.written - 1
        looking: list[asyncio.Task[Seen]] = []
        for _ in range(2):
            viewer = await stack.enter_async_context(panel.logs())
            looking.append(asyncio.create_task(watch(lines_of_rest(viewer), last)))
        over_grpc = grpc.logs()
        await over_grpc.initial_metadata()
        looking.append(asyncio.create_task(watch(lines_of_grpc(over_grpc), last)))
        async with asyncio.timeout(120):
            await flood
            found = await asyncio.gather(*looking)
        over_grpc.cancel()
    for seen in found:
        seen.check()
        assert seen.missing == 0, "who reads loses nothing"


async def test_a_viewer_that_does_not_read_is_told_how_many_lines_it_lost(stage: Stage) -> None:
    async with stage.node.panel() as panel, panel.logs() as sleeper:
        await stage.write(MANY_LINES, 10 * RATE, LONG_HOST)
        async with asyncio.timeout(120):
            seen = await watch(lines_of_rest(sleeper), stage.written - 1)
    seen.check()
    assert seen.missing > 0


async def test_log_files_are_rotated_and_no_line_is_lost(stage: Stage) -> None:
    folder = stage.node.state_dir / "logs"
    first = stage.written
    # Three full ones and the one that is written hold as many.
    await stage.write(25_000)
    last = LINE.format("", stage.written - 1)
    await eventually(lambda: last in (folder / "access.log").read_text(), "all is written")
    names = ["access.log.3", "access.log.2", "access.log.1", "access.log"]
    assert sorted(names) == sorted(path.name for path in folder.iterdir() if path.name.startswith("access"))
    assert max((folder / name).stat().st_size for name in names) <= MIB
    assert numbers_in((folder / name).read_text() for name in names)[-25_000:] == list(range(first, stage.written))


def numbers_in(texts: Iterable[str]) -> list[int]:
    found = [NUMBER.search(line) for text in texts for line in text.splitlines()]
    return [int(one[1]) for one in found if one is not None]


async def test_workers_that_are_killed_while_they_watch_watch_no_more(stage: Stage) -> None:
    async with stage.node.panel() as panel, panel.logs() as viewer:
        await stage.write(100)
        seen = await watch(lines_of_rest(viewer), stage.written - 1)
        seen.check()
        before = worker_pids(stage.node)
        for pid in before:
            kill(pid)
        await watch(lines_of_rest(viewer))

    async def forgotten() -> bool:
        await stage.write(1)
        return await stage.on_the_bus() == 0

    await eventually(forgotten, "the bus gets no line any more", 60)

    async def there_are_others() -> bool:
        return len(set(worker_pids(stage.node)) - set(before)) == 2

    await eventually(there_are_others, "there are other workers", 60)
    async with stage.node.panel() as panel, panel.logs() as viewer:
        await stage.write(100)
        (await watch(lines_of_rest(viewer), stage.written - 1)).check()


async def test_a_supervisor_that_is_restarted_in_place_goes_on_with_the_log(stage: Stage) -> None:
    restarts = stage.node.output_text.count("restarted in place")

    async def flood() -> None:
        while stage.node.output_text.count("restarted in place") == restarts:
            await stage.write(100, 2_000)
        await stage.write(2_000, 2_000)

    async with stage.node.panel() as panel, panel.logs() as viewer:
        looking = asyncio.create_task(watch(lines_of_rest(viewer)))
        flooding = asyncio.create_task(flood())
        os.kill(stage.node.pid, signal.SIGUSR2)
        async with asyncio.timeout(120):
            await flooding
            # Its worker is replaced by one of the next version.
            seen = await looking
    seen.check()
    assert seen.missing == 0
    async with stage.node.panel() as panel, panel.logs() as viewer:
        again = await watch(lines_of_rest(viewer), stage.written - 1)
    assert again.numbers == list(range(again.numbers[0], stage.written)), "the last lines are there still"
