"""The log on its way over a real bus: while somebody watches, and not a line of it while nobody does."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pgnode.bus.commands import Command, Kind
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import Keys
from pgnode.bus.log_batches import ENTRY_BYTES, LEASE_SECONDS, LogBatch, Watch
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.errors import InvalidRequestError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.line_blocks import count_lines
from pgnode.supervisor.core import log_sender
from pgnode.supervisor.core.log_sender import Counted, LogSender
from pgnode.supervisor.host.log_ring import LogRing
from tests.support.polling import eventually
from tests.support.valkey import TestValkey

KEYS = Keys("pgnode")


class Stage:
    """A sender whose clock the test sets, and a look at the bus."""

    def __init__(self, valkey: TestValkey) -> None:
        self.valkey = valkey
        self.now = 1000.0
        self.ring = LogRing(100)
        self.redis = PipelinedRedis(valkey.url)
        self.sender = self.made(Counted("one"))

    def made(self, counted: Counted) -> LogSender:
        redis = PipelinedRedis(self.valkey.url)
        return LogSender(redis, KEYS, self.ring, counted, now=lambda: self.now, retry_seconds=0.01, send_seconds=0.01)

    def put(self, text: str) -> None:
        data = text.encode()
        self.ring.put(data, self.now, count_lines(data))
        self.sender.put(data, count_lines(data))

    def known(self) -> None:
        """Everybody must have said by now whether there are viewers."""
        self.now += LEASE_SECONDS + 1

    async def batches(self) -> list[LogBatch]:
        """What is in the stream."""
        found = await self.redis.execute("XRANGE", KEYS.log, "-", "+")
        return [LogBatch.of(dict(zip(flat[::2], flat[1::2], strict=True))) for _, flat in found]

    async def lines(self) -> list[str]:
        """The lines in the stream that are for all."""
        batches = [batch for batch in await self.batches() if not batch.token]
        return [line for batch in batches for line in batch.block.decode().split("\n")]


@pytest_asyncio.fixture
async def stage(valkey: TestValkey) -> AsyncIterator[Stage]:
    made = Stage(valkey)
    yield made
    made.sender.close()
    made.redis.drop()


async def test_nothing_is_on_the_bus_while_nobody_watches(stage: Stage) -> None:
    stage.known()
    stage.put("one\ntwo")
    assert await stage.sender.pass_on()
    assert await stage.redis.execute("EXISTS", KEYS.log) == 0
    assert repr(stage.sender) == "LogSender(0 lines waiting, LogDemand(0 workers))"


async def test_who_joins_gets_the_last_lines_at_its_place(stage: Stage) -> None:
    stage.known()
    stage.put("one\ntwo\nthree")
    stage.sender.watch("a", Watch(1, on=True, token="t", replay=2))
    stage.put("four")
    stage.put("five\nsix")
    assert await stage.sender.pass_on()
    assert await stage.batches() == [LogBatch("one", 4, b"two\nthree", "t"), LogBatch("one", 4, b"four\nfive\nsix")]
    assert stage.sender.counted == Counted("one", 7)


async def test_the_end_of_the_last_viewer_clears_the_stream(stage: Stage) -> None:
    stage.known()
    stage.sender.watch("a", Watch(1, on=True, token="t"))
    stage.sender.watch("b", Watch(1, on=True, token="u"))
    stage.put("one")
    await stage.sender.pass_on()
    stage.sender.watch("a", Watch(2, on=False))
    stage.put("two")
    await stage.sender.pass_on()
    assert await stage.lines() == ["one", "two"]
    stage.sender.watch("b", Watch(2, on=False))
    stage.put("three")
    await stage.sender.pass_on()
    assert await stage.batches() == []
    stage.sender.watch("b", Watch(3, on=True, token="v", replay=9))
    await stage.sender.pass_on()
    assert await stage.batches() == [LogBatch("one", 4, b"one\ntwo\nthree", "v")]


async def test_a_worker_that_was_killed_watches_no_more(stage: Stage) -> None:
    stage.known()
    stage.sender.watch("a", Watch(1, on=True, token="t"))
    stage.put("one")
    await stage.sender.pass_on()
    stage.now += LEASE_SECONDS - 1
    stage.put("two")
    await stage.sender.pass_on()
    assert await stage.lines() == ["one", "two"]
    stage.now += 2
    stage.put("three")
    await stage.sender.pass_on()
    assert await stage.batches() == []
    # One that was only slow learns that lines are missing by their number.
    stage.sender.watch("a", Watch(2, on=True))
    stage.put("four")
    await stage.sender.pass_on()
    assert await stage.batches() == [LogBatch("one", 4, b"four")]


async def test_a_supervisor_that_has_just_begun_sends_what_it_has_read_to_who_watches_still(stage: Stage) -> None:
    stage.put("one")
    assert await stage.sender.pass_on()
    assert await stage.redis.execute("EXISTS", KEYS.log) == 0, "nobody is known to watch"
    stage.sender.watch("a", Watch(7, on=True))
    await stage.sender.pass_on()
    assert await stage.lines() == ["one"]
    second = stage.sender = stage.made(stage.sender.counted)
    stage.put("two")
    stage.known()
    stage.put("three")
    assert repr(second).startswith("LogSender(0 lines waiting"), "nobody did"


async def test_lines_wait_while_the_bus_is_away_and_the_oldest_are_dropped(
    stage: Stage,
) -> None:
    running = asyncio.create_task(stage.sender.run())
    stage.sender.watch("a", Watch(1, on=True, token="t"))
    stage.put("before")

    async def sent() -> bool:
        return await stage.lines() == ["before"]

    await eventually(sent, "it is sent")
    stage.valkey.kill()
    half = log_sender.WAITING_MAX // 2
    for _ in range(3):
        stage.put("\n".join(["x"] * half))
    assert stage.sender.dropped == half
    stage.now += LEASE_SECONDS - 1
    stage.sender.keep_own(b"of the node")
    await stage.valkey.start()
    stage.put("last")

    async def come() -> bool:
        return (await stage.lines())[-1:] == ["last"]

    await eventually(come, "the others have come", errors=BUS_ERRORS)
    batches = [batch for batch in await stage.batches() if not batch.token]
    assert [batch.number for batch in batches if 1 < batch.number <= 1 + half] == []
    assert batches[-1].number + batches[-1].count == stage.sender.counted.number
    assert await stage.redis.execute("XLEN", KEYS.node_log) == 1
    await end_tasks([running])


async def test_much_goes_in_several_entries(stage: Stage) -> None:
    stage.sender.watch("a", Watch(1, on=True))
    line = "x" * 999
    stage.put("\n".join([line] * 300))
    stage.put("last")
    assert await stage.sender.pass_on()
    batches = await stage.batches()
    assert len(batches) > 1
    assert max(len(batch.block) for batch in batches) <= ENTRY_BYTES
    assert [batch.number for batch in batches] == [1, *(batch.number + batch.count for batch in batches)][:-1]
    assert await stage.lines() == [line] * 300 + ["last"]


async def test_the_nodes_own_lines_are_kept_whoever_watches(stage: Stage) -> None:
    stage.known()
    stage.sender.keep_own(b"one")
    stage.sender.keep_own(b"two")
    await stage.sender.pass_on()
    assert [flat for _, flat in await stage.redis.execute("XRANGE", KEYS.node_log, "-", "+")] == [
        *([b"line", b"one"], [b"line", b"two"])
    ]


async def test_a_workers_command_is_taken(stage: Stage) -> None:
    command = Command("1-0", "id", Kind.WATCH_LOGS, "a", 2000, Watch(1, on=True, token="t", replay=1).encode())
    assert await stage.sender.watch_asked(command) == b""
    assert await stage.sender.watch_asked(command) == b"", "once more, as any command may come"
    await stage.sender.pass_on()
    assert len(await stage.batches()) == 1
    command = dataclasses.replace(command, body=b"what?")
    with pytest.raises(InvalidRequestError, match="another version"):
        await stage.sender.watch_asked(command)


@pytest.mark.parametrize("left", [{}, None, {"source": "one"}, {"source": "one", "number": "7"}])
def test_what_another_version_left_is_no_number(left: object) -> None:
    made = Counted.left(left)
    assert (made.number, len(made.source)) == (1, 8)


def test_a_restart_in_place_goes_on_with_the_numbers() -> None:
    assert Counted.left(dataclasses.asdict(Counted("one", 7))) == Counted("one", 7)
