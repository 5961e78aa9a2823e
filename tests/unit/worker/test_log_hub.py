"""Lines between replay and follow: in order, none missing, none twice, however far the one reader lags behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from pgnode.worker.log_hub import LogHub
from tests.support.polling import next_turn

REPLAY_LINES = 3
QUEUE_LINES = 100


class FakeReader:
    """A stream of entries "1-0", "2-0", … of one line each; the follower sees one when the test lets it."""

    def __init__(self) -> None:
        self.written = 0
        self.away = False
        self.tails_at_once = 0
        #: Cancellations of followers that get lost, as those that come while redis-py has just sent a command.
        self.lost_cancellations = 0
        self._tails = 0
        self._released = asyncio.Semaphore(0)

    async def close(self) -> None:
        pass

    def write(self, lines: int) -> None:
        self.written += lines

    def release(self, lines: int) -> None:
        for _ in range(lines):
            self._released.release()

    async def tail(self, lines: int) -> tuple[str, list[bytes]]:
        self._tails += 1
        self.tails_at_once = max(self.tails_at_once, self._tails)
        try:
            await next_turn()
            if self.away:
                raise RedisConnectionError("away")
            first = max(0, self.written - lines)
            return f"{self.written}-0", [b"%d" % (number + 1) for number in range(first, self.written)]
        finally:
            self._tails -= 1

    async def follow(self, after: str) -> AsyncIterator[tuple[str, list[bytes]]]:
        at = int(after.partition("-")[0])
        while True:
            try:
                await self._released.acquire()
            except asyncio.CancelledError:
                if not self.lost_cancellations:
                    raise
                self.lost_cancellations -= 1
                continue
            at += 1
            yield f"{at}-0", [b"%d" % at]


def hub_on(reader: FakeReader) -> LogHub:
    return LogHub(reader, replay_lines=REPLAY_LINES, queue_lines=QUEUE_LINES)


async def take(entries: AsyncIterator[Any], count: int) -> list[str]:
    lines: list[str] = []
    async with asyncio.timeout(20):
        while len(lines) < count:
            entry = await anext(entries)
            if entry is not None:
                lines.append(entry[1].decode())
    return lines


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def test_a_viewer_gets_the_last_lines_and_what_follows() -> None:
    reader = FakeReader()
    reader.write(10)
    hub = hub_on(reader)
    async with hub.watch() as entries:
        reader.write(2)
        reader.release(2)
        assert await take(entries, REPLAY_LINES + 2) == numbers(8, 12)
    await hub.close()


async def test_who_joins_while_the_reader_lags_behind_gets_nothing_twice() -> None:
    reader = FakeReader()
    reader.write(10)
    hub = hub_on(reader)
    async with hub.watch() as first:
        reader.write(90)  # of which the reader has seen none yet
        async with hub.watch() as second:
            assert await take(second, REPLAY_LINES) == numbers(98, 100)
            reader.release(90)
            reader.write(5)
            reader.release(5)
            assert await take(second, 5) == numbers(101, 105)
            assert await take(first, REPLAY_LINES + 95) == numbers(8, 105)
    await hub.close()


async def test_who_joins_while_the_reader_before_has_not_ended_gets_nothing_twice() -> None:
    reader = FakeReader()
    hub = hub_on(reader)
    first = hub.watch()
    await first.__aenter__()
    await next_turn()
    reader.lost_cancellations = 1
    leaving = asyncio.create_task(first.__aexit__(None, None, None))
    await next_turn()
    async with hub.watch() as entries:
        await next_turn()
        assert not leaving.done(), "there are two"
        for number in range(1, 6):
            reader.write(1)
            reader.release(2)
            assert await take(entries, 1) == [str(number)]
    await leaving
    await hub.close()


async def test_who_joins_while_redis_is_away_gets_the_lines_when_it_is_back() -> None:
    reader = FakeReader()
    reader.away = True
    hub = LogHub(reader, replay_lines=REPLAY_LINES, heartbeat_seconds=0.01, join_seconds=0.01, retry_seconds=0.01)
    async with hub.watch() as entries:
        assert await anext(entries) is None, "a viewer without lines gets heartbeats"
        reader.write(2)  # after the viewer was served
        reader.away = False
        assert await take(entries, 2) == numbers(1, 2)
        reader.write(1)
        reader.release(1)
        assert await take(entries, 1) == ["3"]
    await hub.close()


async def test_who_leaves_while_redis_is_away_leaves_nothing_behind() -> None:
    reader = FakeReader()
    reader.away = True
    hub = LogHub(reader, replay_lines=REPLAY_LINES, join_seconds=0.01, retry_seconds=0.01)
    async with hub.watch():
        pass
    assert repr(hub) == "LogHub(0 viewers)"
    assert hub._follower is None
    await hub.close()


async def test_the_place_in_the_stream_is_known_when_a_viewer_is_served() -> None:
    reader = FakeReader()
    hub = LogHub(reader, replay_lines=0)
    async with hub.watch() as entries:
        reader.write(5)
        reader.release(5)
        assert await take(entries, 5) == numbers(1, 5)
    await hub.close()


async def test_a_viewer_that_does_not_read_loses_the_oldest_lines_and_is_told() -> None:
    reader = FakeReader()
    hub = hub_on(reader)
    async with hub.watch() as sleeper, hub.watch() as awake:
        total = QUEUE_LINES + 7
        taken = asyncio.ensure_future(take(awake, total))
        for _ in range(total):
            reader.release(1)
            await next_turn()
            await next_turn()
        assert await taken == numbers(1, total)
        notice, *rest = await take(sleeper, 1 + QUEUE_LINES)
        assert "7 lines dropped" in notice
        assert rest == numbers(8, total)
    await hub.close()


async def test_many_who_join_at_once_do_not_use_up_the_readers_connections() -> None:
    reader = FakeReader()
    reader.write(10)
    hub = hub_on(reader)

    async def watch() -> list[str]:
        async with hub.watch() as entries:
            return await take(entries, REPLAY_LINES)

    assert await asyncio.gather(*(watch() for _ in range(20))) == [numbers(8, 10)] * 20
    # One connection of the two is taken by the follower.
    assert reader.tails_at_once == 1
    await hub.close()


async def test_a_viewer_of_a_quiet_log_gets_heartbeats() -> None:
    reader = FakeReader()
    hub = LogHub(reader, replay_lines=0, heartbeat_seconds=0.01)
    assert repr(hub) == "LogHub(0 viewers)"
    async with hub.watch() as entries:
        assert await anext(entries) is None
        reader.release(1)
        assert await take(entries, 1) == ["1"]
        assert await anext(entries) is None
        await hub.close()


async def test_the_reader_reads_while_somebody_watches() -> None:
    reader = FakeReader()
    hub = hub_on(reader)
    for number in (1, 2):
        async with hub.watch() as entries:
            reader.write(1)
            reader.release(1)
            assert await take(entries, number) == numbers(1, number)
            assert hub._follower is not None
        assert hub._follower is None
    await hub.close()
