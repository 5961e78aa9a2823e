"""What workers are told, and when."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.snapshots import BACKEND, STATE, NodeStatus
from pgnode.supervisor.lifecycle.actions import FindCore, TakeOverCore
from pgnode.supervisor.lifecycle.events import CoreFound, Done, Found, StartRequested, SupervisorStarted
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.status import StatusBoard
from pgnode.wire import service_pb2 as pb
from pgnode.wire.node_version import told_version
from tests.unit.supervisor.lifecycle.scripts import A, B
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


def board_of(stage: Stage, life: NodeLife, *, taking_over: bool) -> StatusBoard:
    return StatusBoard(
        life,
        cast(Any, stage.core),
        cast(Any, stage.redis),
        stage.snapshots,
        draining=str,
        waiting=str,
        taking_over=taking_over,
    )


def told(stage: Stage) -> tuple[str, bool] | None:
    """The state that workers were told last, and whether a core serves."""
    snapshot = stage.snapshots.get(STATE)
    if snapshot is None:
        return None
    status = NodeStatus.decode(bytes(snapshot.body))
    return str(status.state), status.core_ready


async def test_workers_go_on_by_what_was_said_before_until_the_core_is_taken_over(stage: Stage) -> None:
    life = NodeLife()
    board = board_of(stage, life, taking_over=True)
    await board.introduce(bus_is_new=False)
    life.apply(SupervisorStarted(A, 7))
    life.apply(CoreFound(FindCore(A), Found.MATCHING))
    await board.publish()
    assert told(stage) is None
    life.apply(Done(TakeOverCore(A)))
    await board.publish()
    assert told(stage) == ("running", True)
    life.apply(StartRequested(B, None))
    await board.publish()
    assert told(stage) == ("running", True), "the core serves while the config is checked"


async def test_workers_are_told_at_once_that_a_core_has_to_be_started(stage: Stage) -> None:
    life = NodeLife()
    board = board_of(stage, life, taking_over=True)
    life.apply(SupervisorStarted(A, 7))
    life.apply(CoreFound(FindCore(A), Found.NOTHING))
    await board.publish()
    assert told(stage) == ("starting", False)


@pytest.mark.parametrize("taking_over", [True, False])
async def test_workers_who_were_told_nothing_know_that_it_is_not_known_yet(stage: Stage, taking_over: bool) -> None:
    life = NodeLife()
    board = board_of(stage, life, taking_over=taking_over)
    await board.introduce(bus_is_new=True)
    assert told(stage) == ("restoring", False)
    life.apply(SupervisorStarted(A, 7))
    life.apply(CoreFound(FindCore(A), Found.MATCHING))
    await board.publish()
    assert told(stage) == ("restoring", True), "that it runs is known"
