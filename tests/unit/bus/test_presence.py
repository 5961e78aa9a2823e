"""Workers that said lately that they are there are told from those that have gone."""

from __future__ import annotations

from pgnode.bus.client import CommandClient
from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.presence import workers_alive
from tests.support.polling import eventually
from tests.support.valkey import running_valkey

KEYS = Keys("test")


async def test_a_worker_says_that_it_is_there() -> None:
    async with running_valkey() as valkey:
        redis = connect(valkey.url)
        client = CommandClient(valkey.url, KEYS, "here")
        client.start()

        async def known() -> bool:
            return await workers_alive(redis, KEYS, ["here", "gone"]) == {"here"}

        await eventually(known, "the worker is known")
        await client.close()
        await redis.aclose()
