"""Waiting for an external Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pgnode.bus.connection import connect
from pgnode.errors import ChildFailedError
from pgnode.supervisor.processes.external_redis import wait_for_redis
from tests.support.valkey import TestValkey, running_valkey


async def test_one_that_answers_or_comes_up_is_waited_for() -> None:
    async with running_valkey() as server:
        redis = connect(server.url)
        await wait_for_redis(redis, server.url)
        server.kill()
        waiting = asyncio.create_task(wait_for_redis(redis, server.url))
        await server.start()
        await waiting
        await redis.aclose()


async def test_one_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    server = TestValkey(tmp_path)
    redis = connect(server.url)
    with pytest.raises(ChildFailedError, match=r"REDIS_URL=.* does not answer \(.+\): start it"):
        await wait_for_redis(redis, "redis://host:1/0", start_seconds=0.3)
    await redis.aclose()
