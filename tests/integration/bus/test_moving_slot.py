"""The slot of a node's keys moves from one server of a cluster to another: nothing is made twice, and the node follows."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.pipelined_redis import PipelinedRedis
from tests.support.polling import eventually
from tests.support.redis_servers import running_cluster


async def do(redis: Redis, *words: object) -> Any:
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_slot_that_moves_is_followed(kind: str) -> None:
    async with running_cluster(kind, replicas=False) as cluster:
        url = f"{cluster.url}?tag=node"
        piped, client = PipelinedRedis(url), connect(url)
        await piped.execute("XGROUP", "CREATE", "{node}:commands", "g", "0", "MKSTREAM")
        one = await cluster.owner("{node}:commands")
        two = next(server for server in cluster.servers if server is not one)
        at_one, at_two = one.client(), two.client()
        slot = await do(at_one, "CLUSTER", "KEYSLOT", "{node}:commands")
        ids = [(await do(redis, "CLUSTER", "MYID")).decode() for redis in (at_one, at_two)]
        await do(at_two, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        await do(at_one, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        # What is there is there, and what is not is not made on either side.
        assert await piped.execute("XADD", "{node}:commands", "*", "f", "v")
        for ask in (lambda: piped.execute("SET", "{node}:new", 1), lambda: client.set("{node}:new", 1)):
            with pytest.raises(RedisConnectionError, match="another server has the keys"):
                await ask()
        await do(at_one, "MIGRATE", "127.0.0.1", two.port, "{node}:commands", 0, 5000)
        with pytest.raises(RedisConnectionError, match="another server has the keys"):
            await piped.execute("XADD", "{node}:commands", "*", "f", "v")
        for redis in (at_two, at_one):
            await do(redis, "CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        await eventually(lambda: client.set("{node}:new", 2), "it has moved", errors=BUS_ERRORS)
        # The stream came with its group.
        read = ("XREADGROUP", "GROUP", "g", "c", "COUNT", 9, "STREAMS", "{node}:commands", ">")
        [[_, entries]] = await eventually(lambda: piped.execute(*read), "the stream is there", errors=BUS_ERRORS)
        assert len(entries) == 1
        assert await at_two.get("{node}:new") == b"2"
        for redis in (at_one, at_two, client):
            await redis.aclose()
        piped.drop()
