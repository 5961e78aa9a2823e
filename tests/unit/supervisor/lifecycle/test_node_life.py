"""The state of the node, as everybody else sees it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pgnode.errors import CoreNotStartedError, CoreUnavailableError, NotInitializedError, UnsupportedError
from pgnode.supervisor.lifecycle.actions import Answer, EndCore, FindCore, TakeOverCore
from pgnode.supervisor.lifecycle.events import CoreFound, Done, Found, Request, StopRequested, SupervisorStarted
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import State, TransitionError
from pgnode.testing.run_specs import make_run_spec
from pgnode.wire import service_pb2 as pb
from tests.support.polling import next_turn
from tests.unit.supervisor.lifecycle.scripts import FAILED, IDLE, LINGERING, RECOVERING, RUNNING, A


def test_an_event_is_applied_and_an_impossible_one_changes_nothing() -> None:
    life = NodeLife(RUNNING)
    assert isinstance(life.apply(StopRequested(0.0))[-1], EndCore)
    before = life.now
    with pytest.raises(TransitionError):
        life.apply(Request())
    assert life.now is before
    assert life.apply(Done(EndCore())) == (Answer(),)
    assert (life.state, "idle" in repr(life)) == (State.IDLE, True)


@pytest.mark.parametrize(
    ("life", "error"),
    [
        (IDLE, NotInitializedError),
        (LINGERING, NotInitializedError),
        (FAILED, NotInitializedError),
        (RECOVERING, CoreNotStartedError),
    ],
)
def test_what_does_not_run_is_told_by_its_error(life: Life, error: type[Exception]) -> None:
    with pytest.raises(error):
        NodeLife(life).require_running()


def test_what_runs() -> None:
    assert NodeLife(RUNNING).require_running() is A
    assert NodeLife(RUNNING).keep_alive_seconds == 0
    assert NodeLife(Life(State.RUNNING, make_run_spec("a", keep_alive_seconds=7))).keep_alive_seconds == 7
    assert NodeLife().keep_alive_seconds == 0


def test_routing_is_offered_by_an_xray_backend_alone() -> None:
    life = NodeLife(RUNNING)
    assert (life.require_routing(), life.core_type) == (A, "xray")
    wireguard = RunSpec(pb.Backend(type=pb.WIREGUARD).SerializeToString(), A.base)
    life = NodeLife(replace(RUNNING, desired=wireguard))
    assert life.core_type == "wireguard"
    with pytest.raises(UnsupportedError, match="a WIREGUARD backend has no routing rules and no balancers"):
        life.require_routing()
    assert NodeLife(IDLE).core_type == "xray"
    assert NodeLife(replace(LINGERING, core=wireguard)).core_type == "wireguard"


def test_what_is_counted_goes_by_the_core_that_is_there() -> None:
    assert NodeLife(LINGERING).counted_tags() == [("inbound", "a"), ("outbound", "direct")]
    assert NodeLife().counted_tags() == []


async def test_whoever_asks_waits_until_it_is_known_whether_a_core_runs() -> None:
    life = NodeLife()
    life.apply(SupervisorStarted(A, 7))
    life.apply(CoreFound(FindCore(A), Found.MATCHING))
    asked = asyncio.create_task(life.known())
    await next_turn()
    assert not asked.done()
    life.apply(Done(TakeOverCore(A)))
    await asked
    assert life.require_running() is A
    await life.known()


async def test_nobody_waits_for_ever_and_nobody_is_told_that_none_was_started() -> None:
    life = NodeLife(known_seconds=0.01)
    life.apply(SupervisorStarted(A, 7))
    await life.known()
    with pytest.raises(CoreUnavailableError, match="the node was restarted and still takes over its core"):
        life.require_running()


async def test_a_node_without_anything_to_run_says_so_at_once() -> None:
    life = NodeLife(known_seconds=600.0)
    life.apply(SupervisorStarted(None, 0))
    life.apply(CoreFound(FindCore(None), Found.NOTHING))
    await life.known()
    with pytest.raises(NotInitializedError):
        life.require_running()
