"""A connection that hears a channel, against a real Valkey: what has come is known before it is heard, and its end is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from redis import Redis as SyncRedis
from redis.exceptions import ResponseError

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.subscription import Subscription
from tests.support.polling import eventually, next_turn
from tests.support.valkey import TestValkey

CHANNEL = "news"


@dataclass
class Hearer:
    url: str
    timeout_seconds: float = 30.0
    heard: list[bytes] = field(default_factory=list)
    lost: int = 0
    subscription: Subscription = field(init=False)

    def __post_init__(self) -> None:
        self.subscription = Subscription(
            self.url, CHANNEL, self.heard.append, self._lost, timeout_seconds=self.timeout_seconds
        )

    def _lost(self) -> None:
        self.lost += 1


@pytest.fixture
def hearer(valkey: TestValkey) -> Iterator[Hearer]:
    made = Hearer(valkey.url)
    yield made
    made.subscription.close()


@pytest.fixture
def redis(valkey: TestValkey) -> Iterator[SyncRedis]:
    """A client that waits in this thread: the event loop has no turn meanwhile."""
    with SyncRedis.from_url(valkey.url) as client:
        yield client


async def test_what_has_come_is_known_before_it_is_heard(hearer: Hearer, redis: SyncRedis) -> None:
    assert not hearer.subscription.has_unheard()
    assert repr(hearer.subscription) == "Subscription('news', closed)"
    await hearer.subscription.open()
    assert repr(hearer.subscription) == "Subscription('news', open)"
    assert not hearer.subscription.has_unheard()
    for number in range(3):
        assert redis.publish(CHANNEL, b"%d" % number) == 1
    # Valkey has written it to this connection before it takes the next command of another one.
    redis.ping()
    assert hearer.subscription.has_unheard()
    assert hearer.heard == []
    await eventually(lambda: not hearer.subscription.has_unheard(), "it is read")
    assert hearer.heard == [b"0", b"1", b"2"], "what was read is heard"


async def test_long_messages_and_many(hearer: Hearer, redis: SyncRedis) -> None:
    await hearer.subscription.open()
    messages = [b"%d" % number * (number + 1) * 100 for number in range(200)]
    for message in messages:
        redis.publish(CHANNEL, message)
    await eventually(lambda: len(hearer.heard) == len(messages), "all are heard")
    assert hearer.heard == messages
    redis.publish("another", b"x")
    redis.publish(CHANNEL, b"last")
    await eventually(lambda: hearer.heard[-1] == b"last", "the last one")
    assert len(hearer.heard) == len(messages) + 1


async def test_its_end_is_told_once_and_it_can_be_opened_again(
    hearer: Hearer, redis: SyncRedis, valkey: TestValkey
) -> None:
    await hearer.subscription.open()
    redis.client_kill_filter(_type="pubsub")
    await eventually(lambda: hearer.lost == 1, "it is told")
    assert not hearer.subscription.is_open
    assert not hearer.subscription.has_unheard()
    assert isinstance(hearer.subscription.error, BUS_ERRORS)
    await hearer.subscription.open()
    redis.publish(CHANNEL, b"again")
    await eventually(lambda: hearer.heard == [b"again"], "it hears again")
    # Opened twice it is one connection.
    await hearer.subscription.open()
    await eventually(lambda: redis.pubsub_numsub(CHANNEL) == [(CHANNEL.encode(), 1)], "the first one is gone")
    valkey.kill()
    await eventually(lambda: not hearer.subscription.is_open, "it has ended")
    with pytest.raises(BUS_ERRORS):
        await hearer.subscription.open()
    hearer.subscription.close()
    assert not hearer.subscription.is_open


async def test_what_redis_refuses(valkey: TestValkey) -> None:
    redis = connect(valkey.url, connections=1)
    await redis.acl_setuser("deaf", enabled=True, passwords=["+secret"], categories=["+@all"], reset_channels=True)
    await redis.aclose()
    with pytest.raises(BUS_ERRORS, match="invalid username-password"):
        await Hearer(f"{valkey.url}?username=deaf&password=wrong").subscription.open()
    deaf = Hearer(f"{valkey.url}?username=deaf&password=secret")
    with pytest.raises(ResponseError, match="channel"):
        await deaf.subscription.open()
    assert deaf.lost == 0
    assert not deaf.subscription.is_open


@pytest_asyncio.fixture
async def silent(tmp_path: Path) -> AsyncIterator[str]:
    """Somebody who takes everything and answers nothing."""
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda _reader, writer: taken.append(writer), tmp_path / "s")
    async with server:
        yield f"unix://{tmp_path / 's'}"
        for writer in taken:
            writer.close()


async def test_one_that_does_not_answer(silent: str) -> None:
    with pytest.raises(BUS_ERRORS):
        await Hearer(silent, timeout_seconds=0.05).subscription.open()


async def test_opening_is_given_up_with_its_caller(silent: str) -> None:
    opening = asyncio.create_task(Hearer(silent).subscription.open())
    await next_turn()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
