"""Workers tell of calls by a counter, seldom, and never fail a call for it."""

from __future__ import annotations

from pgnode.bus.activity import ActivityTeller, read_activity
from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from tests.support.polling import eventually
from tests.support.valkey import TestValkey

KEYS = Keys("test")


async def test_many_calls_are_told_once(valkey: TestValkey) -> None:
    redis, teller = connect(valkey.url), ActivityTeller(valkey.url, KEYS, tell_seconds=3600)
    try:
        assert await read_activity(redis, KEYS) == 0
        for _ in range(100):
            teller.called()

        async def told() -> bool:
            return await read_activity(redis, KEYS) == 1

        await eventually(told, "the calls are told")
        teller.called()
        assert await read_activity(redis, KEYS) == 1, "not twice within the pause"
    finally:
        await teller.close()
        await redis.aclose()


async def test_later_calls_are_told_too(valkey: TestValkey) -> None:
    redis, teller = connect(valkey.url), ActivityTeller(valkey.url, KEYS, tell_seconds=0)
    try:
        teller.called()

        async def told_again() -> bool:
            teller.called()
            return await read_activity(redis, KEYS) >= 2

        await eventually(told_again, "later calls are told, too")
        assert repr(teller) == "ActivityTeller(test:activity)"
    finally:
        await teller.close()
        await redis.aclose()


async def test_a_store_that_is_away_fails_no_call(valkey: TestValkey) -> None:
    valkey.kill()
    teller = ActivityTeller(valkey.url, KEYS)
    teller.called()
    assert teller._telling is not None
    await teller._telling
    await teller.close()
    await ActivityTeller(valkey.url, KEYS).close()
