"""A new supervisor and what an earlier one left: state, and perhaps a core."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pgnode.errors import StartFailedError
from pgnode.os_support.aio import end_tasks
from pgnode.settings import Settings
from pgnode.store.state import StoredState
from pgnode.supervisor.lifecycle.kept_spec import decode
from pgnode.supervisor.lifecycle.restore import CRASH_NAME, MAX_KILLS
from pgnode.supervisor.lifecycle.states import State
from pgnode.testing.fake_core import SILENT
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, left_behind, stored, user, with_inbound


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
    assert decode(stage.core.kept_beside, core.config_hash, "/core.sock") is not None, "for the next version"
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


async def test_a_core_that_stands_still_while_it_is_taken_over_is_asked_again(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    assert stage.core.left_behind_api is not None
    stage.core.left_behind_api.channel.errors["ListInbounds"] = [SILENT, SILENT]
    restoring = asyncio.create_task(stage.node.restore(stored(config, user("alice", "a"))))
    for _ in range(2):
        await eventually(lambda: stage.clock.pauses == [1.0], "it is waited for")
        assert stage.state is State.RESTORING
        await stage.clock.advance(1.0)
    await restoring
    assert (stage.told.state, stage.told.core_run, stage.core.running) == ("running", 7, core)
    assert stage.users_in_core == {"a": {"alice"}}


@pytest.mark.parametrize("ends", [False, True], ids=["hangs", "ends"])
async def test_a_core_that_hangs_or_ends_while_it_is_taken_over_makes_room_for_a_new_one(
    stage: Stage, config: str, ends: bool
) -> None:
    core = left_behind(stage, config)
    assert stage.core.left_behind_api is not None
    stage.core.left_behind_api.channel.errors["ListInbounds"] = [SILENT] * 100
    if ends:
        core.die(255)
    restoring = asyncio.create_task(stage.node.restore(stored(config)))
    while True:
        await eventually(lambda: stage.clock.pauses == [1.0] or restoring.done(), "it is waited for, or given up")
        if restoring.done():
            break
        await stage.clock.advance(1.0)
    assert stage.clock.seconds == 1000.0 + (0.0 if ends else stage.settings.core_hang_seconds)
    assert (stage.told.state, stage.clock.pauses) == ("recovering", [0.0])
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
    assert "backend" not in stage.committer.meta, "the store keeps it"
    await stage.start(config)
    assert stage.told.state == "running"


async def test_a_stored_config_that_cannot_even_be_read_ends_nothing(stage: Stage) -> None:
    await stage.node.restore(StoredState(backend=b"\xff", active=True, core_run=7))
    assert (stage.state, stage.core.running) == (State.IDLE, None)
    await stage.start(config_of("a"))
    assert stage.state is State.RUNNING


# --- a config over which the node ends ---------------------------------------------------------------------------------------


class Killed(BaseException):
    """The supervisor is gone, as if it was killed."""


async def ended_by(stage: Stage, state: StoredState, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor ends while it brings the core back; what it stored is there for the next one."""

    def end(_stored: StoredState) -> None:
        raise error

    left_behind(stage, state_config(state), kept=True)
    monkeypatch.setattr(stage.node.users, "restore", end)
    with pytest.raises(type(error)):
        await stage.node.restore(state)
    state.restoring = stage.committer.meta["restoring"] or 0
    state.restore_errors = stage.committer.meta["restore_errors"] or 0


def state_config(state: StoredState) -> str:
    return pb.Backend.FromString(state.backend or b"").config


def crashed(tmp_path: Path) -> None:
    """The supervisor before was ended by SIGSEGV meanwhile."""
    run = Settings(state_dir=tmp_path).run_dir
    run.mkdir(exist_ok=True)
    (run / CRASH_NAME).write_text("Fatal Python error: Segmentation fault\n\nCurrent thread")


@pytest.mark.parametrize("how", ["error", "crash"])
async def test_a_config_that_ends_the_node_twice_is_set_aside(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The attempt is in the store before it is made; what runs goes on all the while, and a start ends it."""
    state = stored(config, user("alice", "a"))
    for attempt in (1, 2):
        await ended_by(Stage(tmp_path), state, ValueError() if how == "error" else Killed(), monkeypatch)
        if how == "crash":
            assert (state.restoring, state.restore_errors) == (1, attempt - 1)
            crashed(tmp_path)
        else:
            assert (state.restoring, state.restore_errors) == (0, attempt)
    for _ in range(2):
        stage = Stage(tmp_path)
        core = left_behind(stage, config, kept=True)
        await stage.node.restore(state)
        assert (stage.told.state, stage.told.unknown) == ("lingering", "the stored config ended the node twice")
        if stage.committer.meta:
            # The crash is in the store from now on.
            assert stage.committer.meta == {"restoring": None, "restore_errors": 2}
            state.restoring, state.restore_errors = 0, 2
            continue
        assert stage.committer.meta == {}, "also for the supervisor after this one"
        assert core.is_running()
    await stage.start(config, user("alice", "a"))
    assert (stage.state, stage.core.running, stage.told.unknown) == (State.RUNNING, core, "")
    assert (stage.committer.meta["restoring"], stage.committer.meta["restore_errors"]) == (None, None)


async def test_kills_from_outside_are_not_the_configs_fault(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = stored(config, user("alice", "a"))
    for number in range(1, MAX_KILLS):
        await ended_by(Stage(tmp_path), state, Killed(), monkeypatch)
        assert (state.restoring, state.restore_errors) == (number, 0)
    stage = Stage(tmp_path)
    core = left_behind(stage, config, kept=True)
    await stage.node.restore(state)
    assert (stage.told.state, stage.told.unknown, stage.core.running) == ("running", "", core)
    assert stage.committer.meta["restoring"] is None
    await ended_by(Stage(tmp_path), state, Killed(), monkeypatch)
    stage = Stage(tmp_path)
    core = left_behind(stage, config, kept=True)
    await stage.node.restore(state)
    assert stage.told.unknown == "the node was killed 5 times in a row while it brought the stored config back"
    assert core.is_running()


async def test_a_config_that_was_set_aside_is_told_without_a_core_as_well(stage: Stage, config: str) -> None:
    state = stored(config)
    state.restore_errors = 2
    await stage.node.restore(state)
    assert (stage.told.state, stage.told.unknown) == ("idle", "the stored config ended the node twice")
    await stage.start(config)
    assert (stage.told.state, stage.told.unknown) == ("running", "")


@pytest.mark.parametrize("comes_up", [True, False])
async def test_an_attempt_that_comes_to_its_end_does_not_count(stage: Stage, config: str, comes_up: bool) -> None:
    state = stored(config)
    state.restoring = 1
    stage.core.start_errors = [] if comes_up else [StartFailedError("no room")]
    await stage.node.restore(state)
    assert stage.state is (State.RUNNING if comes_up else State.RECOVERING)
    assert stage.committer.meta["restoring"] is None


async def test_a_supervisor_that_is_told_to_end_does_not_count(
    stage: Stage, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(stage.core, "adopt", never)
    restoring = asyncio.create_task(stage.node.restore(stored(config)))
    await begun.wait()
    assert stage.committer.meta["restoring"] == 1
    assert stage.node.core_lock.locked(), "jobs that change the core wait"
    await end_tasks([restoring])
    await stage.committer.commit()
    assert stage.committer.meta["restoring"] is None


# --- another version of the node -------------------------------------------------------------------------------------------


async def test_a_core_of_another_version_is_taken_over_as_it_is(stage: Stage, config: str) -> None:
    """It is not ended for what this version would write into its config; the same start leaves it, another one changes it."""
    core = left_behind(stage, config, version="0.5", kept=True)
    await stage.node.restore(stored(config, user("alice", "a")))
    assert (stage.told.state, stage.core.running) == ("running", core)
    assert stage.users_in_core == {"a": {"alice"}}
    await stage.start(config, user("bob", "a"))
    assert stage.core.running is core
    assert stage.users_in_core == {"a": {"bob"}}
    base = stage.life.require_running().base
    assert base.base_hash.endswith("0.5")
    assert "same core" in stage.told.starts
    await stage.start(json.dumps({**json.loads(config), "dns": {"servers": ["localhost"]}}), user("bob", "a"))
    assert not core.is_running()
    assert not stage.life.require_running().base.base_hash.endswith("0.5")


async def test_without_what_it_runs_a_core_of_another_version_is_replaced(stage: Stage, config: str) -> None:
    core = left_behind(stage, config, version="0.5")
    await stage.node.restore(stored(config))
    assert not core.is_running()
    assert stage.told.state == "running"


async def test_what_a_core_runs_is_kept_beside_it(stage: Stage, config: str) -> None:
    def kept() -> pb.Backend:
        running = stage.core.running
        assert running is not None
        spec = decode(stage.core.kept_beside, running.config_hash, "/core.sock")
        assert spec is not None
        return pb.Backend.FromString(spec.message)

    await stage.start(config)
    assert kept().config == config
    await stage.start(with_inbound(config, "b"))
    assert len(json.loads(kept().config)["inbounds"]) == 2
    await stage.start(kept().config, keep_alive=77)
    assert kept().keep_alive == 77


async def test_rules_that_were_changed_belong_to_the_config_of_before(stage: Stage) -> None:
    rule = {"ruleTag": "b", "outboundTag": "BLOCK", "domain": ["b.example"]}
    state = stored(config_of("a", routing={"rules": []}))
    state.routing = {"base": "the hash that another version made", "rules": f"[{rule}]".replace("'", '"')}
    await stage.node.restore(state)
    assert "b.example" in stage.core.configs[0]


async def test_a_core_update_is_told_which_core_was_found(tmp_path: Path, config: str) -> None:
    told: list[str] = []

    async def resolve(running: str) -> None:
        told.append(running)
        raise ValueError

    stage = Stage(tmp_path, resolve_update=resolve)
    await stage.node.restore(stored(config))
    stage = Stage(tmp_path, resolve_update=resolve)
    left_behind(stage, config)
    await stage.node.restore(stored(config))
    assert told == ["", "fake core"]
    assert stage.told.state == "running", "whatever is wrong with an update"


async def test_what_a_core_has_counted_beside_a_backups_books_was_reported(stage: Stage, config: str) -> None:
    left_behind(stage, config)
    state = stored(config, user("alice", "a"))
    state.foreign_books = True
    await stage.node.restore(state)
    assert (stage.told.state, stage.traffic.done.count("write off")) == ("running", 1)
    assert stage.committer.meta["write_off"] is None, "the books are the node's own from here on"


async def test_counters_that_cannot_be_read_yet_are_written_off_by_the_next_supervisor_at_the_latest(
    stage: Stage, config: str
) -> None:
    left_behind(stage, config)
    state = stored(config)
    state.foreign_books, stage.traffic.counters_known = True, False
    await stage.node.restore(state)
    assert (stage.told.state, "write_off" in stage.committer.meta) == ("running", False)


async def test_a_backups_books_without_a_core_are_the_nodes_own(stage: Stage, config: str) -> None:
    state = stored(config)
    state.foreign_books = True
    await stage.node.restore(state)
    assert (stage.told.state, stage.traffic.done.count("write off")) == ("running", 0)
    assert stage.committer.meta["write_off"] is None
