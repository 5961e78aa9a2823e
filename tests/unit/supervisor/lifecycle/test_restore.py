"""A new supervisor and what an earlier one left: state, and perhaps a core."""

from __future__ import annotations

import pytest

from pgnode.store.state import StoredState
from pgnode.supervisor.lifecycle.states import State
from pgnode.testing.fake_core import SILENT
from pgnode.wire import service_pb2 as pb
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, left_behind, stored, user


@pytest.fixture
def config() -> str:
    return config_of("a")


async def test_nothing_was_left(stage: Stage) -> None:
    await stage.node.restore(StoredState())
    assert (stage.told.state, stage.core.done) == ("idle", ["adopt"])


async def test_what_has_to_run_is_started_with_its_users(stage: Stage, config: str) -> None:
    await stage.node.restore(stored(config, user("alice", "a")))
    assert (stage.told.state, stage.told.core_run) == ("running", 8)
    assert "alice" in stage.core.configs[0]
    assert stage.committer.meta["core_run"] == 8


async def test_a_core_that_matches_is_taken_over_and_compared(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    await stage.node.restore(stored(config, user("alice", "a")))
    assert (stage.told.state, stage.told.core_run, stage.core.running) == ("running", 7, core)
    assert stage.users_in_core == {"a": {"alice"}}
    await stage.die(None)
    await stage.pause(0.0)
    assert (stage.told.state, stage.told.core_run) == ("running", 8)


async def test_a_core_with_another_config_is_ended(stage: Stage, config: str) -> None:
    core = left_behind(stage, config_of("b"))
    await stage.node.restore(stored(config))
    assert not core.is_running()
    assert (stage.told.state, stage.told.core_run) == ("running", 8)


async def test_another_core_is_ended(stage: Stage, config: str) -> None:
    core = left_behind(stage, config, "executable /elsewhere/xray")
    await stage.node.restore(stored(config))
    assert not core.is_running()
    assert (stage.told.state, stage.told.core_run) == ("running", 8)


async def test_a_core_without_anything_to_run_is_ended(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    state = stored(config)
    state.active = False
    await stage.node.restore(state)
    assert not core.is_running()
    assert stage.told.state == "idle"


async def test_a_core_that_cannot_be_compared_makes_room_for_a_new_one(
    stage: Stage, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(stage, config)

    async def silent(_inbounds: object) -> None:
        raise SILENT

    with monkeypatch.context() as patched:
        patched.setattr(stage.node.users, "reconcile_all", silent)
        await stage.node.restore(stored(config))
    assert stage.told.state == "recovering"
    await stage.pause(0.0)
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 8)


async def test_what_cannot_be_looked_for_is_not_taken_over(
    stage: Stage, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fault() -> None:
        raise PermissionError("core.json")

    monkeypatch.setattr(stage.core, "adopt", fault)
    await stage.node.restore(stored(config))
    assert (stage.told.state, stage.told.core_run) == ("running", 8)


async def test_a_stored_config_that_cannot_be_used_waits_for_a_start(stage: Stage, config: str) -> None:
    await stage.node.restore(StoredState(backend=pb.Backend(config="{").SerializeToString(), active=True))
    assert stage.told.state == "idle"
    assert stage.committer.meta == {}, "the store keeps it"
    await stage.start(config)
    assert stage.told.state == "running"


async def test_a_stored_config_that_cannot_even_be_read_ends_nothing(stage: Stage) -> None:
    await stage.node.restore(StoredState(backend=b"\xff", active=True, core_run=7))
    assert (stage.state, stage.core.running) == (State.IDLE, None)
    await stage.start(config_of("a"))
    assert stage.state is State.RUNNING


async def test_rules_that_were_changed_belong_to_the_config_of_before(stage: Stage) -> None:
    rule = {"ruleTag": "b", "outboundTag": "BLOCK", "domain": ["b.example"]}
    state = stored(config_of("a", routing={"rules": []}))
    state.routing = {"base": "the hash that another version made", "rules": f"[{rule}]".replace("'", '"')}
    await stage.node.restore(state)
    assert "b.example" in stage.core.configs[0]
