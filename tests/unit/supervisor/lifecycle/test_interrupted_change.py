"""A core that a supervisor was changing when it died is led back by the next one."""

from __future__ import annotations

import json

import pytest

from pgnode.supervisor.lifecycle.hot_change import CHANGING
from pgnode.supervisor.lifecycle.interrupted_change import note_change, noted_change
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import State
from pgnode.testing.fake_core import SILENT, FakeCoreApi, FakeRunningCore
from pgnode.wire import service_pb2 as pb
from pgnode.xray.process.run_folder import CHANGE_NAME
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, left_behind, stored, user, with_inbound


def spec(stage: Stage, config: str) -> RunSpec:
    return RunSpec.read(pb.Backend(config=config), stage.settings)


class Change:
    """From a core with the inbound a to one with another outbound and the inbound c, which the core may be anywhere between."""

    def __init__(self, stage: Stage) -> None:
        self.old = config_of("a")
        self.new = with_inbound(self.old, "c")
        stage.settings.run_dir.mkdir(parents=True, exist_ok=True)
        note_change(stage.settings.run_dir, spec(stage, self.old), spec(stage, self.new))


@pytest.fixture
def change(stage: Stage) -> Change:
    return Change(stage)


def left_changing(stage: Stage, config: str, there: set[str], config_hash: str = CHANGING) -> FakeRunningCore:
    core = left_behind(stage, config)
    core.record = core.record.__class__(900, 900, "boot", config_hash, "fake", "fake core")
    api = FakeCoreApi(spec(stage, config).base)
    api.channel.inbounds = {*api.channel.inbounds - {"a", "c"}, *there}
    stage.core.left_behind_api = api
    return core


@pytest.mark.parametrize("there", [{"a"}, {"a", "c"}])
@pytest.mark.parametrize("forward", [False, True])
async def test_from_anywhere_to_what_is_desired(stage: Stage, change: Change, there: set[str], forward: bool) -> None:
    desired = change.new if forward else change.old
    core = left_changing(stage, desired, there)
    await stage.node.restore(stored(desired, user("alice", "a", "c")))
    assert (stage.told.state, stage.told.core_run, stage.core.running) == ("running", 7, core)
    assert core.config_hash == spec(stage, desired).base.base_hash
    assert stage.core.left_behind_api is not None
    assert ("c" in stage.core.left_behind_api.channel.inbounds) == forward
    assert stage.users_in_core["a"] == {"alice"}


async def test_a_change_that_was_finished_and_not_stored_is_taken_back(stage: Stage, change: Change) -> None:
    core = left_changing(stage, change.new, {"a", "c"}, spec(stage, change.new).base.base_hash)
    await stage.node.restore(stored(change.old))
    assert (stage.core.running, core.config_hash) == (core, spec(stage, change.old).base.base_hash)


async def test_what_cannot_be_finished_makes_room_for_a_new_core(stage: Stage, change: Change) -> None:
    core = left_changing(stage, change.old, {"a"})
    assert stage.core.left_behind_api is not None
    stage.core.left_behind_api.channel.errors["ListInbounds"] = [SILENT]
    await stage.node.restore(stored(change.old))
    assert not core.is_running()
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 8)


@pytest.mark.parametrize("config", [config_of("b"), config_of("a", policy={"levels": {}})])
async def test_a_note_of_other_configs_says_nothing(stage: Stage, change: Change, config: str) -> None:
    core = left_changing(stage, config, {"b"})
    await stage.node.restore(stored(config))
    assert not core.is_running()


async def test_a_change_that_only_a_new_core_can_take_back(stage: Stage, change: Change) -> None:
    other = config_of("a", policy={"levels": {"0": {"handshake": 5}}})
    note_change(stage.settings.run_dir, spec(stage, change.old), spec(stage, other))
    core = left_changing(stage, change.old, {"a"})
    await stage.node.restore(stored(change.old))
    assert not core.is_running()


@pytest.mark.parametrize("content", ["", "[1]", '["?"]', json.dumps({"a": 1}), "[" * 5000])
def test_a_damaged_note_is_none(stage: Stage, content: str) -> None:
    stage.settings.run_dir.mkdir(parents=True, exist_ok=True)
    (stage.settings.run_dir / CHANGE_NAME).write_text(content)
    assert noted_change(stage.settings) == []


def test_a_note_that_cannot_be_written_stops_nothing(stage: Stage) -> None:
    one = spec(stage, config_of("a"))
    note_change(stage.settings.run_dir / "missing", one, one)
    assert noted_change(stage.settings) == []


async def test_two_configs_that_are_one_say_nothing(stage: Stage, change: Change) -> None:
    one = spec(stage, change.old)
    note_change(stage.settings.run_dir, one, one)
    core = left_changing(stage, change.old, {"a"})
    await stage.node.restore(stored(change.old))
    assert not core.is_running()
