"""The node as the rest of the supervisor sees it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.errors import CoreNotStartedError, InternalError, NotInitializedError, StoreUnavailableError
from pgnode.os_support.threads import OFTEN_SECONDS, USUAL_SECONDS
from pgnode.supervisor.lifecycle.states import State
from pgnode.supervisor.users.drift import user_drift
from pgnode.testing.fake_core import SILENT
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.document import BaseConfig
from tests.support.polling import eventually, next_turn
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, user


def sync(*users: pb.User, kind: Kind = Kind.SYNC_USER) -> Command:
    body = users[0].SerializeToString() if kind is Kind.SYNC_USER else pb.Users(users=users).SerializeToString()
    return Command("0-1", "1", kind, "w", 1000, body)


def bases(stage: Stage) -> tuple[BaseConfig | None, BaseConfig | None]:
    """What runs or is being brought back, and what the core runs."""
    return stage.node.running_base, stage.node.core_base


async def test_what_is_known_without_a_backend(stage: Stage) -> None:
    node = stage.node
    assert (node.state, node.keep_alive_seconds, node.running_base, node.core_base) == (State.IDLE, 0, None, None)
    assert node.counted_tags() == []
    with pytest.raises(NotInitializedError):
        node.require_running()


async def test_what_is_known_of_what_runs(stage: Stage, config: str) -> None:
    await stage.start(config, keep_alive=30)
    node = stage.node
    assert node.keep_alive_seconds == 30
    running, core = bases(stage)
    assert running is not None
    assert running is core
    assert node.counted_tags() == [("inbound", "a"), ("outbound", "DIRECT"), ("outbound", "BLOCK")]
    await stage.die()
    with pytest.raises(CoreNotStartedError):
        node.require_running()
    assert bases(stage) == (running, None), "it is being brought back"
    await stage.pause(0.0)
    await stage.stop()
    assert bases(stage) == (None, running)


async def test_a_user_is_changed_in_what_runs(stage: Stage, config: str) -> None:
    [(_, reply)] = await stage.node.sync([sync(user("alice", "a"))])
    assert isinstance(reply.error, NotInitializedError)
    await stage.start(config)
    assert await stage.node.sync([command := sync(user("alice", "a"))]) == [(command, Reply())]
    assert stage.users_in_core == {"a": {"alice"}}


async def test_a_full_set_is_done_in_steps(stage: Stage, config: str) -> None:
    await stage.start(config, user("alice", "a"))
    step = stage.node.begin(sync(user("bob", "a"), kind=Kind.SYNC_USERS))
    assert sys.getswitchinterval() == pytest.approx(USUAL_SECONDS)
    first = asyncio.ensure_future(step())
    await next_turn()
    assert not first.done()
    assert sys.getswitchinterval() == pytest.approx(OFTEN_SECONDS), "others are stored meanwhile"
    reply = await first or await eventually(step, "the set is done")
    assert reply.error is None
    assert sys.getswitchinterval() == pytest.approx(USUAL_SECONDS)
    assert set(stage.node.users.table.keys()) == {"bob"}


async def test_a_full_set_that_cannot_begin(stage: Stage) -> None:
    reply = await stage.node.begin(sync(kind=Kind.SYNC_USERS))()
    assert reply is not None
    assert isinstance(reply.error, NotInitializedError)
    assert sys.getswitchinterval() == pytest.approx(USUAL_SECONDS)


async def test_a_fault_in_a_full_set_is_its_callers(stage: Stage, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.start(config)

    def fault(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stage.node.users.superseded, "begin", fault)
    reply = await stage.node.begin(sync(kind=Kind.SYNC_USERS))()
    assert reply is not None
    assert isinstance(reply.error, InternalError)


async def test_whom_the_core_does_not_have_is_told(stage: Stage, config: str) -> None:
    await stage.start(config)
    assert stage.core.api is not None
    stage.core.api.users.errors["bob"] = SILENT
    await stage.node.sync([sync(user("bob", "a"))])
    assert "bob" in str(user_drift(stage.node.users.table))


async def test_the_api_of_the_core_is_silent_and_answers_again(stage: Stage, config: str) -> None:
    await stage.start(config)
    await stage.node.core_api_answered("deadline")
    assert (stage.told.core_ready, stage.told.core_api_error) == (False, "deadline")
    # A start with another config gets a core that answers.
    await stage.start(config_of("a", "b"))
    assert (stage.told.core_ready, stage.told.core_run) == (True, 2)
    await stage.node.core_api_answered("deadline")
    await stage.node.core_api_answered("")
    assert stage.told.core_ready


async def test_a_silent_panel_degrades_the_node(stage: Stage, config: str) -> None:
    await stage.start(config)
    await stage.node.panel_noticed(True)
    assert (stage.told.state, stage.told.degraded) == ("running", True)
    await stage.node.panel_noticed(False)
    assert not stage.told.degraded


async def test_a_silent_panel_may_mean_a_stop(tmp_path: Path, config: str) -> None:
    stage = Stage(tmp_path, keep_alive_action="stop")
    await stage.start(config)
    await stage.node.panel_noticed(True)
    assert (stage.told.state, stage.committer.meta["active"]) == ("lingering", 0)


async def test_a_start_while_that_stop_waits_is_a_call(tmp_path: Path, config: str) -> None:
    stage = Stage(tmp_path, keep_alive_action="stop")
    await stage.start(config)
    stage.core.let_check.clear()
    started = asyncio.create_task(stage.start(config_of("a", dns={"servers": ["localhost"]})))
    await eventually(lambda: "check" in stage.core.done, "the start is under way")
    noticed = asyncio.create_task(stage.node.panel_noticed(True))
    await eventually(lambda: stage.told.degraded, "the stop waits")
    stage.core.let_check.set()
    await asyncio.gather(started, noticed)
    assert (stage.told.state, stage.told.core_run) == ("running", 2)


async def test_a_hard_reset_forgets_everything(stage: Stage, config: str) -> None:
    await stage.start(config, user("alice", "a"))
    await stage.node.reset()
    assert (stage.told.state, stage.core.running, len(stage.node.users.table)) == ("idle", None, 0)
    assert (stage.committer.meta["active"], stage.committer.users) == (0, {"alice": None})
    await stage.node.reset()
    assert stage.told.state == "idle"


async def test_a_hard_reset_that_the_store_does_not_take_changes_nothing(stage: Stage, config: str) -> None:
    await stage.start(config, user("alice", "a"))
    core, stage.committer.no_room = stage.core.running, StoreUnavailableError("not stored: no room")
    with pytest.raises(StoreUnavailableError, match="no room"):
        await stage.node.reset()
    assert (stage.told.state, stage.core.running, len(stage.node.users.table)) == ("running", core, 1)


async def test_a_shutdown_ends_the_core_and_keeps_what_has_to_run(stage: Stage, config: str) -> None:
    await stage.start(config)
    await stage.node.shut_down()
    assert (stage.core.running, stage.committer.meta["active"]) == (None, 1)
    assert stage.traffic.done[-1] == "last poll"
