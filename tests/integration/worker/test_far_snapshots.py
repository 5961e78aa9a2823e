"""Large snapshots on another host: one worker fetches what is asked for, and all of that host serve it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pgnode.bus.commands import Kind
from pgnode.bus.connection import connect
from pgnode.bus.snapshots import STATS_USERS
from pgnode.wire import service_pb2 as pb
from tests.integration.worker.stage import Stage
from tests.integration.worker.test_shared_snapshots import USERS, block, value_of
from tests.support.far_worker import FarWorker
from tests.support.other_host import other_host
from tests.support.polling import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not other_host(), reason="this machine lets nobody make a pid namespace (unshare)"),
]

WORKERS = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(whole_stage: Stage) -> AsyncIterator[FarWorker]:
    """Workers that cannot map what the supervisor shares."""
    settings = whole_stage.settings
    async with FarWorker(
        "rest",
        redis_url=settings.bus_url,
        cert_file=settings.cert_file,
        key_file=settings.cert_key_file,
        env={"API_KEY": whole_stage.api_key, "WEB_CONCURRENCY": str(WORKERS)},
        before=other_host(),
    ) as running:
        yield running


async def bytes_out(stage: Stage) -> int:
    redis = connect(stage.settings.bus_url, connections=1)
    try:
        return int((await redis.info("stats"))["total_net_output_bytes"])
    finally:
        await redis.aclose()


async def test_a_reading_goes_to_a_host_once_and_only_when_it_is_asked_for(stage: Stage, far: FarWorker) -> None:
    supervisor = stage.supervisor
    size = len(block(1))
    for value in (1, 2, 3):
        await supervisor.publish({STATS_USERS: block(value)})
    assert not supervisor.of_kind(Kind.BRING), "nobody asked"
    before = await bytes_out(stage)

    async def all_say(value: int) -> bool:
        # Each connection is some worker's.
        panels = [far.panel(api_key=stage.api_key) for _ in range(4 * WORKERS)]
        found = await asyncio.gather(*(value_of(panel, "user7") for panel in panels))
        await asyncio.gather(*(panel.close() for panel in panels))
        return set(found) == {value}

    await eventually(lambda: all_say(3), "each worker has the newest one")
    async with far.panel(api_key=stage.api_key) as panel:
        whole = await panel.stats(pb.UsersStat)
        assert (len(whole), {one.value for one in whole}) == (USERS, {3})
    brought = len(supervisor.of_kind(Kind.BRING))
    spent = await bytes_out(stage) - before
    assert 1 <= brought <= 2, "one for the host; another one where a worker had not heard of the last revision yet"
    assert size <= spent < (brought + 0.5) * size
    assert not stage.supervisor.memory.cannot_be_mapped("")
    assert stage.supervisor.memory.works, "workers of the supervisor's host go on mapping"


async def test_while_nobody_brings_it_the_one_before_is_told(stage: Stage, far: FarWorker) -> None:
    await stage.supervisor.publish({STATS_USERS: block(4)})
    async with far.panel(api_key=stage.api_key) as panel:
        await eventually(lambda: _is(panel, 4), "the newest one")
        await stage.supervisor.close()
        try:
            assert await value_of(panel, "user7") == 4
        finally:
            await stage.new_supervisor()
        await stage.supervisor.publish({STATS_USERS: block(5)})
        await eventually(lambda: _is(panel, 5), "the newest one")


async def _is(panel: object, value: int) -> bool:
    return await value_of(panel, "user7") == value  # type: ignore[arg-type]
