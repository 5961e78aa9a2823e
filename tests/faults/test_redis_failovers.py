"""The server that has the keys fails over under load: 503 for as long as it takes, and nothing that was answered is lost."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from pgnode.testing.faults import ArmedFaults
from tests.faults.checker import Record
from tests.faults.conftest import HELD, PATIENT, READ_OFTEN, Stage, staged, three_inbounds
from tests.faults.held import holders
from tests.faults.leftovers import TidyNode
from tests.faults.load import under_load
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.redis_servers import RedisServer, Watched, running_cluster, running_sentinels

pytestmark = pytest.mark.timeout(400)

#: The key that every node has while it runs.
OWNER = "{pgnode}:owner"


@contextlib.asynccontextmanager
async def stage_on(url: str, request: pytest.FixtureRequest, trial: Trial, folder: Path) -> AsyncIterator[Stage]:
    """A node of its own on this Redis."""
    faults, config = ArmedFaults(folder / "fault-points"), three_inbounds()
    env = PATIENT | READ_OFTEN | {"WEB_CONCURRENCY": "2", "GRPC_WORKERS": "0", "REDIS_URL": url, **faults.environment}
    async with (
        holders(config, HELD, 1) as made,
        TidyNode(env=env) as node,
        node.panel() as panel,
        staged(Stage(node, panel, config, Record(panel), faults, trial, made), request) as stage,
    ):
        yield stage


@pytest.mark.fault("master behind sentinels killed, its successor told to step down later, under 30 callers")
async def test_sentinels(request: pytest.FixtureRequest, trial: Trial, tmp_path: Path, whole: bool) -> None:
    """The first one comes back as a replica; of several rounds, it becomes the master again in one, with nobody killed."""
    async with (
        running_sentinels() as watched,
        stage_on(watched.url, request, trial, tmp_path) as stage,
        under_load(stage) as load,
    ):
        first = await watched.master()
        first.kill()
        trial.struck()
        second = await watched.another_master(first)
        await load.progress(60)
        await first.start()
        await load.progress(30)
        if whole:
            await told_to_step_down(watched, second)
            trial.tried(2)


async def told_to_step_down(watched: Watched, master: RedisServer) -> None:
    """A failover that an operator asks for."""
    client = watched.sentinels[0].client()

    async def told() -> bool:
        # Refused until the sentinel knows the replica, and for some seconds after the failover before.
        return bool(await client.execute_command("SENTINEL", "FAILOVER", "node"))  # type: ignore[no-untyped-call]

    try:
        await eventually(told, "a sentinel begins a failover", 60, errors=(RedisError,))
    finally:
        await client.aclose()
    await watched.another_master(master)


@pytest.mark.fault("server of a cluster that has the node's keys killed under 30 callers")
async def test_a_cluster(request: pytest.FixtureRequest, trial: Trial, tmp_path: Path) -> None:
    async with (
        running_cluster() as cluster,
        stage_on(cluster.url, request, trial, tmp_path) as stage,
        under_load(stage) as load,
    ):
        first = await cluster.owner(OWNER)
        first.kill()
        trial.struck()

        async def another() -> bool:
            return await cluster.owner(OWNER) is not first

        await eventually(another, "another server has the keys", 60, errors=(RedisError, RuntimeError))
        await load.progress(60)
