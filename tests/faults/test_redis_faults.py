"""A Redis of one's own is emptied, evicts, is slow, or is cut off while users change: nothing that was answered is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from tests.faults.conftest import PATIENT, READ_OFTEN, Load, Stage
from tests.faults.leftovers import TidyNode
from tests.faults.load import under_load
from tests.support.polling import eventually
from tests.support.redis_servers import running_server
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.timeout(400)

#: What is held up by the proxy for each piece, either way.
SLOW_SECONDS = 0.15

#: Milliseconds for which Redis answers nobody: longer than the node waits for it.
PAUSE_MS = 3500


@dataclass(frozen=True)
class Bus:
    """A Redis of one's own, and the way there."""

    redis: Redis
    way: TcpProxy


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bus() -> AsyncIterator[Bus]:
    async with running_server() as server, tcp_proxy(server.port) as way:
        redis = server.client()
        yield Bus(redis, way)
        await redis.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(node_faults: ArmedFaults, bus: Bus) -> AsyncIterator[NodeProcess]:
    env = {"WEB_CONCURRENCY": "2", "GRPC_WORKERS": "0", "REDIS_URL": bus.way.url, **node_faults.environment}
    async with TidyNode(env=PATIENT | READ_OFTEN | env) as running:
        yield running


async def fails(load: Load) -> None:
    """Wait until calls fail: the node has noticed."""
    record = load.record
    before = sum(not call.done for call in record.calls)

    def more_failed() -> bool:
        return sum(not call.done for call in record.calls) > before

    await eventually(more_failed, "calls are refused", 60)


@pytest.mark.fault("Redis of one's own emptied (FLUSHALL) three times under 30 callers")
async def test_emptied(stage: Stage, bus: Bus) -> None:
    async with under_load(stage) as load:
        for _ in range(3):
            await bus.redis.flushall()
            stage.trial.struck()
            await load.progress(30)
    stage.trial.tried(3)


@pytest.mark.fault("Redis of one's own evicts all that it holds, and takes nothing new for a moment, under 30 callers")
async def test_evicting(stage: Stage, bus: Bus) -> None:
    async with under_load(stage) as load:
        await bus.redis.config_set("maxmemory-policy", "allkeys-lru")
        try:
            for _ in range(3):
                before = (await bus.redis.info("stats"))["evicted_keys"]
                await bus.redis.config_set("maxmemory", "1")
                stage.trial.struck()

                async def evicted(than: int = before) -> bool:
                    return bool((await bus.redis.info("stats"))["evicted_keys"] > than)

                await eventually(evicted, "keys are evicted")
                await bus.redis.config_set("maxmemory", "0")
                await load.progress(30)
        finally:
            await bus.redis.config_set("maxmemory", "0")
            await bus.redis.config_set("maxmemory-policy", "noeviction")
    stage.trial.tried(3)


@pytest.mark.fault("Redis of one's own stands still for 3.5 s, then answers late, under 30 callers")
async def test_slow(stage: Stage, bus: Bus) -> None:
    async with under_load(stage) as load:
        await bus.redis.client_pause(PAUSE_MS)
        stage.trial.struck()
        await fails(load)
        await load.progress(30)
        bus.way.delay_seconds = SLOW_SECONDS
        try:
            await load.progress(60)
        finally:
            bus.way.delay_seconds = 0.0


@pytest.mark.fault("way to Redis of one's own cut in both directions, with nobody told, under 30 callers")
async def test_cut_off(stage: Stage, bus: Bus) -> None:
    async with under_load(stage) as load:
        bus.way.cut()
        stage.trial.struck()
        await fails(load)
        assert bus.way.dropped
        bus.way.mend()
