"""The shell: pauses, a core that dies, one that lingers; and that nothing that goes wrong in it ends the node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from pgnode.bus.commands import Command, Kind
from pgnode.bus.connection import BUS_ERRORS
from pgnode.errors import InternalError, StartFailedError
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle.events import ExchangeRequested, Request, StartRequested, StopRequested
from pgnode.supervisor.lifecycle.states import State
from pgnode.testing.fake_core import SILENT
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.document import BaseConfig
from tests.support.polling import eventually
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, user


async def test_a_core_that_dies_is_brought_back_at_once_and_then_after_pauses(stage: Stage, config: str) -> None:
    await stage.start(config, user("alice", "a"))
    await stage.die()
    assert stage.told.state == "recovering"
    assert stage.traffic.done[-1] == "store"
    await stage.pause(0.0)
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 2)
    assert stage.committer.meta["core_run"] == 2
    await stage.die(None)
    assert stage.clock.pauses == [0.5]
    await stage.pause(0.4)
    assert stage.told.state == "recovering"
    await stage.pause(0.2)
    assert stage.told.state == "running"


@pytest.mark.parametrize("how", ["stop", "die"])
async def test_who_departed_is_forgotten_when_the_core_has_ended(tmp_path: Path, config: str, how: str) -> None:
    stage = Stage(tmp_path, stop_linger_seconds=0)
    departures = stage.node.users.departures
    departures.wanted = True
    await stage.start(config, user("alice", "a"))
    command = Command("0-2", "2", Kind.SYNC_USER, "w", 1000, pb.User(email="alice").SerializeToString())
    await stage.node.sync([command])
    assert repr(departures) == "Departures(1 waiting, 1 open)"
    await (stage.stop() if how == "stop" else stage.die())
    # Before there is another core, in which alice may be again.
    assert stage.core.running is None
    assert repr(departures) == "Departures(0 waiting, 0 open)"


async def test_a_core_that_does_not_stay_up_is_given_up_and_a_start_clears_that(stage: Stage, config: str) -> None:
    await stage.start(config)
    stage.core.start_errors = [StartFailedError("no")] * 8
    await stage.die()
    pauses = []
    while stage.told.state == "recovering":
        pauses += stage.clock.pauses
        await stage.pause(pauses[-1])
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert (stage.told.state, stage.clock.pauses, stage.core.start_errors) == ("failed", [60.0], [])
    await stage.start(config)
    assert (stage.told.state, stage.clock.pauses) == ("running", [])


async def test_an_exit_code_that_means_a_bad_config_is_given_up_at_once(stage: Stage, config: str) -> None:
    await stage.start(config)
    await stage.die(23)
    assert (stage.told.state, stage.clock.pauses) == ("failed", [60.0])


async def test_what_was_given_up_comes_back_by_itself_and_the_log_says_it_once(stage: Stage, config: str) -> None:
    with structlog.testing.capture_logs() as lines:
        await stage.start(config, user("alice", "a"))
        stage.core.start_errors = [StartFailedError("no room")] * 3
        await stage.die(23)
        for pause in (60.0, 120.0, 300.0):
            assert (stage.told.state, stage.clock.pauses) == ("failed", [pause])
            await stage.pause(pause)
        assert stage.clock.pauses == [600.0]
        await stage.pause(600.0)
    assert (stage.told.state, stage.clock.pauses) == ("running", [])
    said = [line for line in lines if line["log_level"] == "error"]
    assert [(line["why"], line["pause_seconds"]) for line in said] == [
        ("exit code 23 means that it refuses its config", 60.0)
    ]
    assert stage.node.life.given_up == 4


async def test_a_stop_ends_the_tries_of_a_core_that_was_given_up(stage: Stage, config: str) -> None:
    await stage.start(config)
    await stage.die(23)
    await stage.stop()
    assert (stage.told.state, stage.clock.pauses) == ("idle", [])


async def test_a_stop_lets_the_core_linger(stage: Stage, config: str) -> None:
    await stage.start(config)
    await stage.stop()
    linger = stage.settings.stop_linger_seconds
    assert (stage.told.state, stage.clock.pauses) == ("lingering", [linger])
    assert stage.node.core_base is not None
    assert stage.committer.meta["active"] == 0
    await stage.pause(linger)
    assert (stage.told.state, stage.core.running) == ("idle", None)
    assert stage.traffic.done[-1] == "last poll"


async def test_a_start_takes_a_lingering_core_over(stage: Stage, config: str) -> None:
    await stage.start(config, user("alice", "a"))
    running = stage.core.running
    await stage.stop()
    await stage.start(config, user("bob", "a"))
    assert (stage.told.state, stage.core.running, stage.clock.pauses) == ("running", running, [])
    await stage.pause(1000.0)
    assert stage.core.running is running


async def test_a_lingering_core_that_does_not_answer_is_replaced(stage: Stage, config: str) -> None:
    await stage.start(config, user("alice", "a"))
    await stage.stop()
    stage.fail_call("GetSysStats", SILENT)
    await stage.start(config, user("alice", "a"))
    assert (stage.told.state, stage.told.core_run) == ("running", 2)


async def test_a_lingering_core_that_dies_is_not_brought_back(stage: Stage, config: str) -> None:
    await stage.start(config)
    await stage.stop()
    await stage.die()
    assert (stage.told.state, stage.clock.pauses) == ("idle", [])


async def test_a_stop_while_recovering_ends_the_retries(stage: Stage, config: str) -> None:
    await stage.start(config)
    await stage.die()
    await stage.stop()
    await stage.pause(100.0)
    assert (stage.told.state, stage.core.running) == ("idle", None)


async def test_without_linger_a_stop_ends_the_core(tmp_path: Path, config: str) -> None:
    stage = Stage(tmp_path, stop_linger_seconds=0)
    await stage.start(config)
    await stage.stop()
    assert (stage.told.state, stage.core.running) == ("idle", None)


# --- what goes wrong in the shell -------------------------------------------------------------------------------------


async def test_a_core_that_cannot_be_ended_is_no_obstacle(stage: Stage, config: str) -> None:
    await stage.start(config)
    stage.core.stop_error = TimeoutError("did not end 5 s after SIGKILL")
    await stage.start(config_of("b", dns={"servers": ["localhost"]}))
    assert (stage.told.state, stage.told.core_run) == ("running", 2)


async def test_a_fault_after_a_core_came_up_leaves_no_second_one(
    stage: Stage, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(base: BaseConfig, _make_config: object) -> None:
        stage.core.come_up(base)
        raise OSError("read-only folder")

    with monkeypatch.context() as patched:
        patched.setattr(stage.core, "start", start)
        with pytest.raises(InternalError):
            await stage.start(config)
    assert (stage.told.state, stage.core.running) == ("idle", None)
    await stage.start(config)
    assert stage.told.state == "running"


async def test_a_process_that_cannot_be_warmed_up_is_no_obstacle(
    stage: Stage, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> None:
        raise StartFailedError("no process for the core can be started: Cannot allocate memory")

    monkeypatch.setattr(stage.core, "warm_up", no_room)
    await stage.start(config)
    assert stage.told.state == "running"


async def test_what_cannot_be_cleared_up_after_a_death_is_no_obstacle(stage: Stage, config: str) -> None:
    await stage.start(config)
    stage.core.stop_error = OSError("no such file")
    await stage.die()
    await stage.pause(0.0)
    assert (stage.told.state, stage.told.core_run) == ("running", 2)


async def test_a_bus_that_is_away_is_no_obstacle(stage: Stage, config: str) -> None:
    stage.redis.error = BUS_ERRORS[0]("away")
    await stage.start(config)
    await stage.die()
    await stage.pause(0.0)
    assert stage.state is State.RUNNING


async def test_a_fault_in_what_follows_a_new_core_is_no_obstacle(
    stage: Stage, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fault(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stage.node.users, "try_failed_again", fault)
    await stage.start(config)
    assert stage.state is State.RUNNING


async def test_what_has_no_meaning_is_an_error_of_whoever_asked(stage: Stage, config: str) -> None:
    await stage.start(config)
    with pytest.raises(InternalError):
        await stage.lifecycle.request(Request())
    await stage.lifecycle.request(StopRequested(0.0))
    assert stage.state is State.IDLE


async def test_a_fault_behind_a_pause_does_not_end_the_node(
    stage: Stage, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.start(config)
    await stage.die()

    def fault(_event: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(stage.life, "apply", fault)
        await stage.pause(0.0)
    await stage.start(config)
    assert stage.state is State.RUNNING


class _NoHands:
    async def carry_out(self, action: do.Action) -> None:
        raise NotImplementedError


async def test_what_nobody_carries_out_fails(stage: Stage, config: str) -> None:
    """An exchange whose hands do nothing leaves the core as it was."""
    await stage.start(config)
    async with stage.node.core_lock:
        with pytest.raises(StartFailedError, match="the core was started all the same"):
            await stage.lifecycle.request(ExchangeRequested(), _NoHands())
        with pytest.raises(StartFailedError, match="the core was started all the same"):
            await stage.lifecycle.request(ExchangeRequested())
        with pytest.raises(InternalError):
            await stage.lifecycle.request(StartRequested(stage.node.require_running(), None))
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 3)


async def test_a_start_that_is_cancelled_is_followed_by_one_that_is_not(stage: Stage, config: str) -> None:
    await stage.start(config, user("alice", "a"))
    stage.core.let_check.clear()
    started = asyncio.create_task(stage.start(config_of("b", dns={"servers": ["localhost"]})))
    await eventually(lambda: "check" in stage.core.done, "the start is under way")
    started.cancel()
    with pytest.raises(asyncio.CancelledError):
        await started
    stage.core.let_check.set()
    await stage.start(config, user("bob", "a"))
    assert stage.state is State.RUNNING
    assert set(stage.node.users.table.keys()) == {"bob"}
