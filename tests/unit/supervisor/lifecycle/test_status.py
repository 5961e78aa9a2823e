"""What workers are told, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.snapshots import BACKEND, STATE
from pgnode.bus.state import State
from pgnode.supervisor.lifecycle.status import StatusBoard
from pgnode.wire import service_pb2 as pb
from pgnode.wire.node_version import told_version
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, user


async def test_a_change_of_users_alone_is_no_news(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config)
    await stage.start(config, user("alice", "a"))
    written = stage.redis.written
    stage.journal.users["bob"] = None
    await stage.committer.commit()
    assert stage.redis.written == written


async def test_a_new_cores_first_figures_come_with_it(stage: Stage) -> None:
    assert stage.snapshots.get(BACKEND) is None
    await stage.start(config_of("a"))
    snapshot = stage.snapshots.get(BACKEND)
    assert snapshot is not None
    assert pb.BackendStatsResponse.FromString(bytes(snapshot.body)).uptime == 1


async def test_a_core_that_tells_no_version_keeps_the_known_one(stage: Stage) -> None:
    status = stage.lifecycle._status
    stage.core.version_text = ""
    await status.learn_version()
    stage.redis.error = BUS_ERRORS[0]("away")
    await status.publish()
    assert "26.10.10" in repr(status)
    assert status.base_info() == pb.BaseInfoResponse(
        core_version="26.10.10",
        node_version=told_version(status.status().node_version),
        version=status.status().node_version,
        core_type="xray",
    )


async def test_workers_are_not_told_that_a_core_is_being_taken_over(stage: Stage) -> None:
    life = SimpleNamespace(state=State.STARTING, now=stage.lifecycle._life.now, keep_alive_seconds=0, core_type="xray")
    board = StatusBoard(
        cast(Any, life),
        cast(Any, stage.core),
        cast(Any, stage.redis),
        stage.snapshots,
        draining=str,
        waiting=str,
        taking_over=True,
    )

    async def told() -> bool:
        before = stage.snapshots.get(STATE)
        await board.publish()
        return stage.snapshots.get(STATE) is not before

    assert not await told()
    life.state = State.RUNNING
    assert await told()
    life.state = State.STARTING
    assert await told(), "a start is one again"
