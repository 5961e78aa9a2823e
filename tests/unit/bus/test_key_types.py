"""Keys that hold something of another type than the node's are removed, and no others."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from pgnode.bus.connection import connect
from pgnode.bus.key_types import remove_other_types, says_other_type, types_of
from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.snapshots import ALL, STATE
from tests.support.valkey import TestValkey

KEYS = Keys("types:")


async def test_only_what_is_of_another_type_goes(valkey: TestValkey) -> None:
    redis, wire = connect(valkey.url), PipelinedRedis(valkey.url)
    await redis.set(KEYS.commands, "no stream")
    await redis.hset(KEYS.snapshot(STATE), "rev", "3")
    with pytest.raises(ResponseError) as error:
        await redis.xlen(KEYS.commands)
    assert says_other_type(error.value)
    assert not says_other_type(ResponseError("NOGROUP"))
    assert await remove_other_types(wire, types_of(KEYS, ALL)) == [KEYS.commands]
    assert await redis.keys(f"{KEYS.prefix}*") == [KEYS.snapshot(STATE).encode()]
    assert await remove_other_types(wire, types_of(KEYS, ALL)) == []
    wire.drop()
    await redis.aclose()


def test_the_owner_is_left() -> None:
    assert KEYS.owner not in types_of(KEYS, ALL)
