"""Large snapshots are in memory that all workers map: served as any other, also when a worker is killed, or cannot map them."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.bus import indexed
from pgnode.bus.snapshots import SHARED_BYTES, STATS_USERS
from pgnode.testing.panel import PanelClient
from pgnode.wire import service_pb2 as pb
from tests.integration.worker.grpc_process import GrpcWorker
from tests.integration.worker.stage import NOT_YET, Stage
from tests.support.polling import eventually
from tests.support.processes import kill
from tests.support.stub_supervisor import stat

pytestmark = pytest.mark.asyncio(loop_scope="module")

USERS = 6_000


def block(value: int) -> bytes:
    """The statistics of many users, who all moved so many bytes."""
    parts = {
        f"user{number}": pb.StatResponse(stats=[stat(f"user{number}", "traffic", "uplink", value)]).SerializeToString()
        for number in range(USERS)
    }
    made = indexed.pack((indexed.name_hash(name), part) for name, part in parts.items())
    assert len(made) > SHARED_BYTES
    return made


def mapped_by(pid: int) -> set[str]:
    """The shared memory that a process maps."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "pgnode-shared-" in line}


def holds(pid: int, name: str) -> bool:
    """Whether a process maps shared memory, or has it open."""
    opened = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    return name in mapped_by(pid) | opened


@pytest_asyncio.fixture(loop_scope="module")
async def stage(whole_stage: Stage) -> AsyncIterator[Stage]:
    await whole_stage.supervisor.publish_all()
    await eventually(lambda: len(whole_stage.worker_pids()) == 2, "both workers run")
    yield whole_stage


async def value_of(panel: PanelClient, name: str) -> int:
    return sum(one.value for one in await panel.stats(pb.UserStat, name))


async def all_serve(stage: Stage, value: int) -> None:
    """Wait until each worker maps the newest revision, and alone."""

    async def so() -> bool:
        async with stage.panel() as panel:
            now = await value_of(panel, "user7") == value
        # Each has but one, and all have the same: the one that was asked has the newest.
        maps = [mapped_by(pid) for pid in stage.worker_pids()]
        return now and all(len(names) == 1 for names in maps) and len(set().union(*maps)) == 1

    await eventually(so, "each worker maps the newest revision", errors=NOT_YET)


async def test_every_answer_is_the_same(stage: Stage, panel: PanelClient, worker: GrpcWorker) -> None:
    await stage.supervisor.publish({STATS_USERS: block(1)})
    await stage.supervisor.publish({STATS_USERS: block(2)})
    await all_serve(stage, 2)
    whole = await panel.stats(pb.UsersStat)
    assert [(one.name, one.value) for one in whole] == [(f"user{number}", 2) for number in range(USERS)]
    as_json = {"Content-Type": "application/json", "Accept": "application/json"}
    answer = await panel.request("GET", "/stats", b'{"type": "UsersStat"}', headers=as_json)
    assert {one["name"] for one in json.loads(answer.body)["stats"]} == {one.name for one in whole}
    async with worker.caller() as caller:
        found = await caller.call("GetStats", pb.StatRequest(type=pb.UsersStat))
        assert list(found.stats) == whole
        [one] = (await caller.call("GetStats", pb.StatRequest(type=pb.UserStat, name="user9"))).stats
        assert one.value == 2
    assert worker.process is not None
    assert mapped_by(worker.process.pid) == mapped_by(stage.worker_pids()[0])


async def test_a_worker_that_is_killed_while_it_maps_one_leaves_nothing(stage: Stage, panel: PanelClient) -> None:
    await stage.supervisor.publish({STATS_USERS: block(3)})
    await all_serve(stage, 3)
    before = stage.worker_pids()
    for pid in before:
        kill(pid)
    await eventually(lambda: len(set(stage.worker_pids()) - set(before)) == 2, "others came")
    await all_serve(stage, 3)
    [name] = mapped_by(stage.worker_pids()[0])
    await stage.supervisor.publish({STATS_USERS: block(4)})
    await all_serve(stage, 4)
    # Nobody maps the one before, and nobody holds it: it is gone.
    for pid in [os.getpid(), *stage.worker_pids()]:
        assert not holds(pid, name)


async def test_what_workers_cannot_map_they_get_from_redis(stage: Stage, panel: PanelClient) -> None:
    memory = stage.supervisor.memory
    await stage.supervisor.publish({STATS_USERS: block(5)})
    await all_serve(stage, 5)
    assert memory.works
    # As if /proc did not show them: they are shared by a handle that leads nowhere.
    shared = memory.put(STATS_USERS, block(6))
    assert shared is not None
    assert memory.cannot_be_mapped(shared.handle)
    await stage.supervisor.publish({STATS_USERS: block(7)})

    async def from_redis() -> bool:
        return await value_of(panel, "user7") == 7 and not any(map(mapped_by, stage.worker_pids()))

    await eventually(from_redis, "each worker has a copy", errors=NOT_YET)
    assert len(await panel.stats(pb.UsersStat)) == USERS
    await stage.supervisor.look_again()
