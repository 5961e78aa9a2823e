"""A drain from its beginning to its end: what the core has, what users are told, and what a next supervisor makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from pgnode.bus.commands import Command, Kind
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.figures.health import not_ready
from pgnode.supervisor.lifecycle.drain import DRAINING, RETRY_SECONDS, Drain
from pgnode.supervisor.lifecycle.drain_plan import DrainOrder
from pgnode.testing.clock import run_ready
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.fake_core import SILENT, FakeChannel, users_of
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, left_behind, stored, user

IN_USE = CoreApiError("listen tcp: address already in use", ErrorKind.REFUSED)


@pytest.fixture
def config() -> str:
    """Two inbounds that are taken out, and one that stays."""
    grpc = make_inbound("grpc", "vless", stream={"network": "grpc"})
    return json.dumps(make_config([make_inbound("a", "vless"), make_inbound("b", "vless"), grpc]))


@pytest.fixture
async def begun(stage: Stage, config: str) -> Stage:
    await stage.start(config, user("alice", "a", "b", "grpc"))
    return stage


def drain_of(stage: Stage) -> Drain:
    return stage.node.drain


def channel(stage: Stage) -> FakeChannel:
    assert stage.core.api is not None
    return stage.core.api.channel


def back_with(stage: Stage) -> dict[str, set[str]]:
    """Inbounds that were added -> with whom."""
    return {inbound.tag: users_of(inbound) for inbound in channel(stage).added}


@contextlib.contextmanager
def api_calls(stage: Stage) -> Iterator[list[str]]:
    before = len(channel(stage).calls)
    made: list[str] = []
    yield made
    made += channel(stage).calls[before:]


@contextlib.asynccontextmanager
async def running(stage: Stage) -> AsyncIterator[None]:
    """The task of the drain is at work."""
    task = asyncio.create_task(drain_of(stage).run())
    try:
        await run_ready()
        yield
    finally:
        await end_tasks([task])


async def sync(stage: Stage, *users: pb.User) -> list[object]:
    """What callers are told who change one user each."""
    commands = [
        Command(f"{n}-1", str(n), Kind.SYNC_USER, "w", 0, one.SerializeToString()) for n, one in enumerate(users)
    ]
    async with stage.node.core_lock:
        answers = await stage.node.sync(commands)
        await stage.committer.commit()
    return [reply.error for _, reply in answers]


async def test_inbounds_are_away_and_come_back_with_all_users(begun: Stage) -> None:
    stage, drain = begun, drain_of(begun)
    await drain.begin(None, hold=False)
    assert (channel(stage).inbounds, drain.away) == ({"grpc"}, ["a", "b"])
    assert (stage.told.draining, stage.told.state, stage.told.core_ready) == (DRAINING, "running", True)
    assert DrainOrder.decode(stage.committer.meta["drain"]) == drain.order
    assert not_ready(stage.told, wanted=True, store_error="") == [DRAINING]
    assert await sync(stage, user("bob", "a", "grpc"), user("alice")) == [None, None]
    assert stage.users_in_core == {"grpc": {"bob"}}, "nothing is sent for an inbound that is away"
    assert set(stage.committer.users) >= {"bob"}
    assert await drain.cancel()
    assert (channel(stage).inbounds, drain.away, drain.error) == ({"a", "b", "grpc"}, [], "")
    assert back_with(stage) == {"a": {"bob"}, "b": set()}
    assert (stage.told.draining, stage.committer.meta["drain"]) == ("", None)
    assert repr(drain) == "Drain(None, away: nothing)"
    assert not await drain.cancel()


async def test_workers_are_told_before_anything_is_done(begun: Stage) -> None:
    drain = drain_of(begun)
    async with begun.node.core_lock:
        beginning = asyncio.create_task(drain.begin(None, hold=False))
        await run_ready()
        assert (begun.told.draining, drain.away) == (DRAINING, [])
    await beginning
    assert drain.away == ["a", "b"]


async def test_an_order_is_stored_before_the_core_is_touched(begun: Stage) -> None:
    begun.fail_call("ListInbounds", SILENT)
    await drain_of(begun).begin(None, hold=False)
    assert begun.committer.meta["drain"]
    assert channel(begun).inbounds == {"a", "b", "grpc"}


async def test_its_time_ends_it(begun: Stage) -> None:
    async with running(begun):
        await drain_of(begun).begin(60.0, hold=False)
        await begun.pause(59.0)
        assert drain_of(begun).away == ["a", "b"]
        await begun.pause(2.0)
        assert (drain_of(begun).away, drain_of(begun).order) == ([], None)
        # Another time, and none at all.
        await drain_of(begun).begin(60.0, hold=False)
        await drain_of(begun).begin(None, hold=False)
        await begun.pause(61.0)
        assert drain_of(begun).away == ["a", "b"]


async def test_what_the_core_does_not_do_is_tried_again(begun: Stage) -> None:
    stage, drain = begun, drain_of(begun)
    async with running(stage):
        await stage.pause(0.0)
        stage.fail_call("RemoveInbound", None, SILENT, SILENT, SILENT)
        await drain.begin(None, hold=False)
        await stage.pause(0.0)
        assert (drain.away, drain.error) == (["a"], "Deadline Exceeded")
        await stage.pause(RETRY_SECONDS)
        assert (drain.away, drain.error) == (["a", "b"], "")
        # A port that somebody else has by now, of one inbound: the other one is not in its way.
        stage.fail_call("AddInbound", IN_USE, IN_USE, None, *[IN_USE] * 4)
        await drain.cancel()
        await stage.pause(0.0)
        assert drain.away == ["a"]
        assert stage.told.draining.startswith("inbounds are not back after a drain: a (inbound 'a': listen tcp")
        await stage.pause(RETRY_SECONDS)
        assert (drain.away, drain.error, stage.told.draining) == ([], "", "")
    assert stage.state == "running"


async def test_an_unexpected_error_leaves_nothing_away(begun: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    drain = drain_of(begun)
    await drain.begin(None, hold=False)
    with monkeypatch.context() as patched:
        patched.setattr("pgnode.supervisor.lifecycle.drain.plan_drain", lambda _base: 1 / 0)
        await drain.settle()
        assert drain.error == "ZeroDivisionError"
    async with running(begun):
        await drain.cancel()
    assert drain.away == []


async def test_one_that_came_back_unseen_gets_what_was_changed_meanwhile(begun: Stage) -> None:
    """The core did not answer in time, and added the inbound all the same."""
    stage, drain = begun, drain_of(begun)
    await drain.begin(None, hold=False)
    assert await sync(stage, user("bob", "a")) == [None]
    channel(stage).inbounds.add("a")
    await drain.settle()
    assert stage.users_in_core["a"] == {"alice", "bob"}
    assert drain.away == ["a", "b"], "it is taken out again"
    # Where its users cannot be told, they are asked after again.
    channel(stage).inbounds.add("a")
    stage.fail_call("ListInbounds", None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage.node.users, "reconcile_all", _silent)
        await drain.cancel()
        assert drain.error == "Deadline Exceeded"
    await drain.settle()
    assert (drain.away, drain.error) == ([], "")


async def _silent(_inbounds: object) -> None:
    raise SILENT


async def test_a_user_whom_the_core_refuses_is_on_the_list(begun: Stage) -> None:
    stage, drain = begun, drain_of(begun)
    await drain.begin(None, hold=False)
    assert await sync(stage, user("bob", "a")) == [None]
    assert stage.core.api is not None
    refused = CoreApiError("no such cipher", ErrorKind.REFUSED)
    stage.core.api.users.errors["bob"] = refused
    stage.fail_call("AddInbound", refused)
    await drain.cancel()
    assert drain.away == []
    assert "bob" in stage.node.users.rejected
    assert "alice" in stage.users_in_core["a"]


async def test_nothing_is_asked_of_the_core_without_a_drain(begun: Stage) -> None:
    with api_calls(begun) as made:
        await drain_of(begun).settle()
    assert made == []


# --- starts, stops and new cores ------------------------------------------------------------------------------------------


async def test_a_start_ends_it(begun: Stage, config: str) -> None:
    await drain_of(begun).begin(None, hold=False)
    await begun.start(config, user("bob", "b"))
    assert (channel(begun).inbounds, drain_of(begun).order) == ({"a", "b", "grpc"}, None)
    assert (begun.told.draining, begun.committer.meta["drain"], begun.told.core_run) == ("", None, 1)
    assert back_with(begun) == {"a": set(), "b": {"bob"}}


async def test_a_start_that_is_refused_does_not(begun: Stage) -> None:
    await drain_of(begun).begin(None, hold=False)
    with pytest.raises(Exception, match="config"):
        await begun.start("{")
    assert drain_of(begun).away == ["a", "b"]


async def test_one_that_is_held_goes_on_over_starts(begun: Stage, config: str) -> None:
    stage, drain = begun, drain_of(begun)
    await drain.begin(None, hold=True)
    await stage.start(config, user("bob", "b"))
    assert (drain.away, stage.told.core_run) == (["a", "b"], 1)
    # Parts are changed: one that is away, one that is new, and one that goes for good.
    document = json.loads(config)
    changed = {**document["inbounds"][0], "port": make_inbound("a", "vless")["port"]}
    document["inbounds"] = [changed, document["inbounds"][2], make_inbound("c", "vless")]
    await stage.start(json.dumps(document), user("bob", "b"))
    assert (drain.away, channel(stage).inbounds, stage.told.core_run) == (["a", "c"], {"grpc"}, 1)
    assert stage.told.starts == {"new core": 1, "same core": 1, "hot change": 1}
    await drain.cancel()
    assert channel(stage).inbounds == {"a", "c", "grpc"}


async def test_a_new_core_is_drained_too(begun: Stage) -> None:
    stage, drain = begun, drain_of(begun)
    await drain.begin(None, hold=False)
    await stage.die()
    assert drain.away == []
    await stage.pause(60.0)
    assert (stage.told.core_run, drain.away, channel(stage).inbounds) == (2, ["a", "b"], {"grpc"})


async def test_a_node_on_which_nothing_runs_is_drained_until_a_start(stage: Stage, config: str) -> None:
    await drain_of(stage).begin(None, hold=False)
    assert (stage.told.draining, drain_of(stage).plan().taken) == (DRAINING, ())
    await stage.start(config)
    assert (stage.told.draining, channel(stage).inbounds) == ("", {"a", "b", "grpc"})


async def test_a_reset_ends_it(begun: Stage) -> None:
    await drain_of(begun).begin(None, hold=True)
    await begun.node.reset()
    assert (drain_of(begun).order, begun.committer.meta["drain"]) == (None, None)


async def test_a_start_that_fails_later_leaves_nothing_away(begun: Stage, config: str) -> None:
    """It passed its checks, which ended the drain, and then the core it found goes on."""
    stage = begun
    async with running(stage):
        await drain_of(stage).begin(None, hold=False)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(stage.lifecycle, "render_ahead", _fails)
            with pytest.raises(Exception, match="internal error"):
                await stage.start(json.dumps({**json.loads(config), "dns": {}}))
        await stage.pause(0.0)
        assert (channel(stage).inbounds, drain_of(stage).order) == ({"a", "b", "grpc"}, None)


async def _fails(*_: object) -> None:
    raise RuntimeError("no")


# --- the next supervisor ----------------------------------------------------------------------------------------------------


async def test_the_next_supervisor_goes_on(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    assert stage.core.left_behind_api is not None
    stage.core.left_behind_api.channel.inbounds = {"b", "grpc"}
    state = stored(config, user("alice", "a", "b"))
    state.drain = DrainOrder(1.0, hold=False).encode()
    await stage.node.restore(state)
    assert (stage.core.running, drain_of(stage).away, stage.told.draining) == (core, ["a", "b"], DRAINING)
    await drain_of(stage).cancel()
    assert back_with(stage) == {"a": {"alice"}, "b": {"alice"}}


@pytest.mark.parametrize("drain", ["", "{", DrainOrder(1.0, 2.0).encode()])
async def test_the_next_supervisor_puts_back_what_nothing_keeps_away(stage: Stage, config: str, drain: str) -> None:
    core = left_behind(stage, config)
    assert stage.core.left_behind_api is not None
    stage.core.left_behind_api.channel.inbounds = {"b", "grpc"}
    state = stored(config, user("alice", "a", "b"))
    state.drain = drain
    await stage.node.restore(state)
    assert (stage.core.running, drain_of(stage).away, stage.told.draining) == (core, [], "")
    assert back_with(stage) == {"a": {"alice"}}
    assert stage.committer.meta.get("drain") is None


async def test_one_that_cannot_come_back_at_once_costs_nobody_the_connection(stage: Stage, config: str) -> None:
    core = left_behind(stage, config)
    assert stage.core.left_behind_api is not None
    stage.core.left_behind_api.channel.inbounds = {"b", "grpc"}
    stage.core.left_behind_api.channel.errors["AddInbound"] = [IN_USE]
    await stage.node.restore(stored(config))
    assert (stage.core.running, stage.state, drain_of(stage).away) == (core, "running", ["a"])
    async with running(stage):
        await stage.pause(RETRY_SECONDS)
    assert drain_of(stage).away == []


async def test_a_supervisor_that_finds_no_core_forgets_it(stage: Stage, config: str) -> None:
    state = stored(config)
    state.drain = DrainOrder(1.0, hold=True).encode()
    await stage.node.restore(state)
    assert (stage.told.core_run, drain_of(stage).order, drain_of(stage).away) == (8, None, [])
    assert stage.committer.meta["drain"] is None


async def test_of_a_core_that_nobody_knows_nothing_is_asked(stage: Stage) -> None:
    left_behind(stage, config_of("a"))
    state = stored("{")
    state.drain = DrainOrder(1.0, hold=True).encode()
    await stage.node.restore(state)
    assert (stage.state, drain_of(stage).away) == ("lingering", [])
    await stage.start(config_of("a"))
    assert drain_of(stage).away == ["a"]
