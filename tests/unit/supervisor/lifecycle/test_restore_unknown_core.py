"""A core is found of which the store does not know enough: it goes on, and what is asked of it."""

from __future__ import annotations

import pytest

from pgnode.errors import StartFailedError, UnavailableError
from pgnode.store.state import StoredState
from pgnode.supervisor.lifecycle.states import State
from pgnode.wire import service_pb2 as pb
from pgnode.xray.proto import user_pb2
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, left_behind, stored, user, with_inbound

#: What a node says whose state folder lost its store.
NEW = StoredState()


def unreadable(config: str, *users: pb.User) -> StoredState:
    """A stored start that this version refuses; ``config`` is what an earlier one took it for."""
    state = stored(config, *users)
    state.backend = pb.Backend(config=REFUSED).SerializeToString()
    return state


REFUSED = '{"inbounds": []}'


async def started_again(stage: Stage, config: str, *users: pb.User) -> None:
    """The core goes on, nobody is told that it runs, and a start of the same config takes it over with its users."""
    core = stage.core.running
    assert core is not None
    assert (stage.told.state, stage.told.core_ready) == ("lingering", False)
    assert stage.told.unknown
    assert "active" not in stage.committer.meta, "what has to run is for the panel to say"
    await stage.pause(10_000)
    assert stage.core.running is core, "no time ends it"
    await stage.start(config, *users)
    assert (stage.state, stage.core.running, stage.told.unknown) == (State.RUNNING, core, "")
    assert "start" not in stage.core.done
    assert stage.committer.meta["active"] == 1


@pytest.mark.parametrize("kept", [True, False])
async def test_a_core_goes_on_whose_store_was_lost(stage: Stage, config: str, kept: bool) -> None:
    left_behind(stage, config, kept=kept)
    await stage.node.restore(NEW)
    assert "write off" in stage.traffic.done, "nobody knows what was reported"
    api = stage.core.api
    assert api is not None
    api.channel.inbounds = {"a"}
    api.users.users["a"]["stranger"] = user_pb2.User(email="stranger").SerializeToString()
    await started_again(stage, config, user("alice", "a"))
    assert stage.users_in_core == {"a": {"alice"}}


async def test_a_core_goes_on_whose_stored_config_is_refused_by_this_version(stage: Stage, config: str) -> None:
    left_behind(stage, config)
    await stage.node.restore(unreadable(config, user("alice", "a")))
    assert "no inbounds" in stage.told.unknown
    assert "write off" not in stage.traffic.done
    await started_again(stage, config, user("alice", "a"))


async def test_where_it_is_kept_beside_the_core_nothing_is_missing(stage: Stage, config: str) -> None:
    core = left_behind(stage, config, kept=True, asked=REFUSED)
    await stage.node.restore(unreadable(config, user("alice", "a")))
    assert (stage.told.state, stage.told.unknown, stage.core.running) == ("running", "", core)
    assert stage.users_in_core == {"a": {"alice"}}
    await stage.die(None)
    await stage.pause(0.0)
    assert stage.told.state == "running", "it comes back with what it ran"


async def test_a_start_with_another_config_replaces_a_core_of_which_nothing_is_known(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    await stage.node.restore(NEW)
    stage.core.check_errors = [StartFailedError("no certificate")]
    with pytest.raises(StartFailedError, match="no certificate"):
        await stage.start(config_of("b"))
    assert (stage.state, stage.core.running) == (State.LINGERING, core), "a start that is refused changes nothing"
    await stage.start(config_of("b"))
    assert not core.is_running()
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 1)


async def test_parts_of_a_core_are_changed_that_is_kept_beside_it(stage: Stage, config: str) -> None:
    core = left_behind(stage, config, kept=True)
    await stage.node.restore(NEW)
    stage.core.api.channel.inbounds = {"a"}  # type: ignore[union-attr]
    await stage.start(with_inbound(config, "b"), user("alice", "a", "b"))
    assert (stage.state, stage.core.running) == (State.RUNNING, core)
    assert stage.users_in_core["a"] == {"alice"}


async def test_what_lingers_unasked_is_stopped_by_a_stop(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    await stage.node.restore(NEW)
    await stage.stop()
    assert core.is_running()
    await stage.pause(stage.settings.stop_linger_seconds)
    assert (stage.state, core.is_running()) == (State.IDLE, False)
    assert stage.committer.meta["active"] == 0


async def test_what_lingers_unasked_and_dies_is_not_brought_back(stage: Stage, config: str) -> None:
    left_behind(stage, config, kept=True)
    await stage.node.restore(NEW)
    await stage.die(None)
    await stage.pause(100.0)
    assert (stage.state, stage.core.running) == (State.IDLE, None)


async def test_what_lingers_unasked_is_not_exchanged(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    await stage.node.restore(NEW)

    async def nothing() -> None:
        raise AssertionError

    with pytest.raises(UnavailableError, match="start the node first"):
        await stage.node.exchange_core(nothing, nothing, "core update")
    assert core.is_running()


async def test_a_start_that_cannot_even_be_read_leaves_it_alone(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    await stage.node.restore(NEW)
    with pytest.raises(StartFailedError):
        await stage.start("{")
    assert (stage.state, stage.core.running, stage.committer.meta) == (State.LINGERING, core, {})
