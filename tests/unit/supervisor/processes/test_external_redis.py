"""Waiting for an external Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.errors import ChildFailedError
from pgnode.supervisor.processes.external_redis import wait_for_redis, warn_of_eviction
from tests.support.valkey import TestValkey, running_valkey

KEYS = Keys("node")


async def test_one_that_answers_or_comes_up_is_waited_for() -> None:
    async with running_valkey() as server:
        redis = connect(server.url)
        await wait_for_redis(redis, server.url, server.url, KEYS)
        server.kill()
        waiting = asyncio.create_task(wait_for_redis(redis, server.url, server.url, KEYS))
        await server.start()
        await waiting
        await redis.aclose()


async def test_one_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    server = TestValkey(tmp_path)
    redis = connect(server.url)
    with pytest.raises(ChildFailedError, match=r"REDIS_URL=redis://me:…@host:1/0 does not answer \(.+\): start it"):
        await wait_for_redis(redis, server.url, "redis://me:…@host:1/0", KEYS, start_seconds=0.3)
    await redis.aclose()


@pytest.mark.parametrize(
    ("policy", "maxmemory", "told"),
    [("allkeys-lru", "100mb", True), ("allkeys-lru", "0", False), ("volatile-ttl", "100mb", False)],
)
async def test_one_that_may_evict_what_waits_is_told(policy: str, maxmemory: str, told: bool) -> None:
    async with running_valkey() as server:
        redis = connect(server.url)
        await redis.config_set("maxmemory-policy", policy)
        await redis.config_set("maxmemory", maxmemory)
        with structlog.testing.capture_logs() as logs:
            await wait_for_redis(redis, server.url, server.url, KEYS)
        assert ["may evict" in entry["event"] for entry in logs] == [True] * told
        await redis.aclose()


async def test_one_that_may_not_be_asked_is_taken(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        redis = connect(TestValkey(tmp_path).url)
        await warn_of_eviction(redis)
        await redis.aclose()
    assert not logs
