"""Viewers of one worker: each gets the last lines and what follows, in order, none missing, none twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from pgnode.bus.log_batches import LogBatch, Watch
from pgnode.errors import BusUnavailableError
from pgnode.os_support.aio import end_tasks
from pgnode.worker.log_hub import LogHub
from pgnode.worker.log_queue import LogQueue
from tests.support.polling import eventually, next_turn

REPLAY_LINES = 3
QUEUE_LINES = 100


class FakeBus:
    """The stream and the supervisor behind it: lines are numbers, and who is announced gets a place in the stream."""

    def __init__(self) -> None:
        self.entries: list[LogBatch] = []
        self.written = 0
        self.away = self.silent = False
        #: Places that get lost.
        self.loses = 0
        self.told: list[Watch] = []
        self.followers = 0
        self._news = asyncio.Condition()

    def close(self) -> None:
        pass

    async def tell(self, watch: Watch) -> None:
        await next_turn()
        if self.silent:
            raise BusUnavailableError("the supervisor is away")
        self.told.append(watch)
        if watch.token and self.loses:
            self.loses -= 1
        elif watch.token:
            first = max(0, self.written - watch.replay)
            await self._put(LogBatch("one", self.written, _lines(first, self.written), watch.token))

    async def write(self, count: int) -> None:
        first, self.written = self.written, self.written + count
        await self._put(LogBatch("one", first, _lines(first, self.written)))

    async def _put(self, batch: LogBatch) -> None:
        self.entries.append(batch)
        async with self._news:
            self._news.notify_all()

    async def newest(self) -> str:
        await next_turn()
        if self.away:
            raise RedisConnectionError("away")
        return f"{len(self.entries)}-0"

    async def follow(self, after: str) -> AsyncIterator[tuple[str, LogBatch]]:
        self.followers += 1
        try:
            at = int(after.partition("-")[0])
            while True:
                async with self._news:
                    await self._news.wait_for(lambda at=at: len(self.entries) > at)  # type: ignore[misc]
                at += 1
                yield f"{at}-0", self.entries[at - 1]
        finally:
            self.followers -= 1


def _lines(first: int, end: int) -> bytes:
    return "\n".join(str(number + 1) for number in range(first, end)).encode()


def hub_on(bus: FakeBus, **options: Any) -> LogHub:
    options = {"replay_lines": REPLAY_LINES, "queue": lambda: LogQueue(QUEUE_LINES), "retry_seconds": 0.01, **options}
    return LogHub(bus, bus.tell, **options)


async def take(entries: AsyncIterator[Any], count: int) -> list[str]:
    lines: list[str] = []
    async with asyncio.timeout(20):
        while len(lines) < count:
            entry = await anext(entries)
            if entry is not None:
                lines += entry[1].decode().split("\n")
    return lines


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def test_a_viewer_gets_the_last_lines_and_what_follows() -> None:
    bus = FakeBus()
    await bus.write(10)
    hub = hub_on(bus)
    async with hub.watch() as entries:
        await bus.write(2)
        assert await take(entries, REPLAY_LINES + 2) == numbers(8, 12)
    await hub.close()


async def test_who_joins_later_gets_its_own_last_lines_and_nothing_twice() -> None:
    bus = FakeBus()
    hub = hub_on(bus, queue=LogQueue)
    async with hub.watch() as first:
        await bus.write(100)
        async with hub.watch() as second:
            await bus.write(5)
            assert await take(second, REPLAY_LINES + 5) == numbers(98, 105)
            assert await take(first, 105) == numbers(1, 105)
    await hub.close()


async def test_the_place_in_the_stream_is_known_when_a_viewer_is_served() -> None:
    bus = FakeBus()
    hub = hub_on(bus, replay_lines=0)
    async with hub.watch() as entries:
        await bus.write(5)
        assert await take(entries, 5) == numbers(1, 5)
    await hub.close()


@pytest.mark.parametrize("who", ["away", "silent"])
async def test_who_joins_while_the_bus_or_the_supervisor_is_away_gets_the_lines_later(who: str) -> None:
    bus = FakeBus()
    setattr(bus, who, True)
    hub = hub_on(bus, heartbeat_seconds=0.01, join_seconds=0.01)
    async with hub.watch() as entries:
        assert await anext(entries) is None, "a viewer without lines gets heartbeats"
        await bus.write(2)  # after the viewer was served
        setattr(bus, who, False)
        assert await take(entries, 2) == numbers(1, 2)
        await bus.write(1)
        assert await take(entries, 1) == ["3"]
    await hub.close()


async def test_a_place_that_got_lost_is_asked_for_again() -> None:
    bus = FakeBus()
    bus.loses = 2
    hub = hub_on(bus, join_again_seconds=0.01)
    await bus.write(1)
    async with hub.watch() as entries:
        assert await take(entries, 1) == ["1"]
    assert len({watch.token for watch in bus.told if watch.token}) == 3
    await hub.close()


async def test_who_leaves_while_redis_is_away_leaves_nothing_behind() -> None:
    bus = FakeBus()
    bus.away = True
    hub = hub_on(bus, join_seconds=0.01)
    async with hub.watch():
        pass
    assert repr(hub) == "LogHub(0 viewers)"
    await eventually(lambda: bus.told, "that nobody watches is told all the same")
    await hub.close()
    assert [watch.on for watch in bus.told] == [False]


async def test_a_viewer_that_does_not_read_loses_the_oldest_lines_and_is_told() -> None:
    bus = FakeBus()
    hub = hub_on(bus)
    async with hub.watch() as sleeper, hub.watch() as awake:
        total = QUEUE_LINES + 7
        taken = asyncio.ensure_future(take(awake, total))
        for _ in range(total):
            await bus.write(1)
            for _turn in range(4):
                await next_turn()
        assert await taken == numbers(1, total)
        notice, *rest = await take(sleeper, 1 + QUEUE_LINES)
        assert "7 lines dropped" in notice
        assert rest == numbers(8, total)
    await hub.close()


async def test_lines_that_are_missing_in_the_stream_are_told() -> None:
    bus = FakeBus()
    hub = hub_on(bus)
    async with hub.watch() as entries:
        await bus.write(1)
        bus.written += 4
        await bus.write(1)
        first, notice, last = await take(entries, 3)
        assert (first, last) == ("1", "6")
        assert notice.startswith("[4 lines lost")
    await hub.close()


async def test_many_who_join_at_once_are_announced_together() -> None:
    bus = FakeBus()
    await bus.write(10)
    hub = hub_on(bus)

    async def watch() -> list[str]:
        async with hub.watch() as entries:
            return await take(entries, REPLAY_LINES)

    assert await asyncio.gather(*(watch() for _ in range(20))) == [numbers(8, 10)] * 20
    assert len([watch for watch in bus.told if watch.token]) <= 2
    await hub.close()


async def test_a_viewer_of_a_quiet_log_gets_heartbeats() -> None:
    bus = FakeBus()
    hub = hub_on(bus, replay_lines=0, heartbeat_seconds=0.01)
    assert repr(hub) == "LogHub(0 viewers)"
    async with hub.watch() as entries:
        assert await anext(entries) is None
        await bus.write(1)
        assert await take(entries, 1) == ["1"]
        assert await anext(entries) is None
        await hub.close()


async def test_it_is_said_that_somebody_watches_for_as_long_as_that_is_so() -> None:
    bus = FakeBus()
    hub = hub_on(bus, renew_seconds=0.01)
    for round_ in (1, 2):
        async with hub.watch():
            seen = len(bus.told)
            await eventually(lambda seen=seen: len(bus.told) > seen + 2, "it is said again and again")  # type: ignore[misc]
            assert bus.followers == 1
        await eventually(lambda: bus.told and not bus.told[-1].on, f"the end is told in round {round_}")
        assert bus.followers == 0
    numbers_told = [watch.number for watch in bus.told]
    assert numbers_told == sorted(set(numbers_told))
    assert [watch.token for watch in bus.told].count("") == len(bus.told) - 2
    await hub.close()


async def test_work_that_failed_begins_again_with_the_next_viewer() -> None:
    bus = FakeBus()
    hub = hub_on(bus)
    async with hub.watch() as entries:
        assert hub._working is not None
        await end_tasks([hub._working])
        async with hub.watch() as second:
            await bus.write(1)
            assert await take(second, 1) == ["1"]
            assert await take(entries, 1) == ["1"]
    await hub.close()
