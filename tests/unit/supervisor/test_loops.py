"""The supervisor's loops, with a core, a node and statistics that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from pgnode.bus.snapshots import BACKEND, POLLED, STATS_USERS, SYSTEM, Polled
from pgnode.bus.state import State
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.host.cgroup import Limits
from pgnode.supervisor.host.system_stats import SystemSampler
from pgnode.supervisor.loops import (
    CounterLoop,
    FiguresLoop,
    HealthLoop,
    SystemLoop,
    figures_pause,
    wait_for_turn,
)
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.proto.stats_command_pb2 import SysStatsResponse
from tests.support.polling import eventually


class FakeApi:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.error: CoreApiError | None = None
        self.stats = self

    async def sys_stats(self, _deadline_seconds: float) -> SysStatsResponse:
        if self.error is not None:
            raise self.error
        return SysStatsResponse(NumGoroutine=7)


class FakeNode:
    """Node and core in one."""

    def __init__(self) -> None:
        self.state = State.RUNNING
        self.api: Any = FakeApi()
        self.run_id = "run 1"
        self.told: list[str] = []

    async def core_api_answered(self, error: str) -> None:
        self.told.append(error)


class FakePublisher:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.count = 0
        self.works = True

    async def publish(
        self, bodies: Mapping[str, bytes], last: Callable[[], Mapping[str, bytes]] = dict[str, bytes]
    ) -> bool:
        self.count += 1
        self.bodies.update(bodies)
        self.bodies.update(last())
        return self.works

    def revisions(self, names: Iterable[str]) -> dict[str, int]:
        return {name: self.count for name in names if name in self.bodies}


class FakeTraffic:
    """Statistics that are news when they are told to be."""

    def __init__(self) -> None:
        self.news, self.urgent, self.due = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.polls: list[str] = []
        self.error = ""
        self.stored = 0
        self.forgotten: list[int] = []

    async def poll(self, _api: Any, run: str, *, scheduled: bool) -> str:
        assert scheduled
        self.polls.append(run)
        return self.error

    async def store_if_due(self) -> None:
        self.stored += 1

    async def forget_removed(self, generation: int) -> None:
        self.forgotten.append(generation)

    async def blocks(self) -> dict[str, bytes]:
        return {STATS_USERS: b"block"}

    def polled(self, now_ms: float, since: Mapping[str, int], *, of_blocks: bool) -> Polled:
        assert of_blocks
        return Polled(1, 2, "", 3, 4, int(now_ms), dict(since))


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def publisher() -> Any:
    return FakePublisher()


async def runs(loop: Any, until: Callable[[], object]) -> None:
    """Run a loop until something is true; it goes on by itself."""
    task = asyncio.create_task(loop.run())
    await eventually(until, "the loop has done its work")
    assert not task.done()
    await end_tasks([task])


async def test_the_core_s_figures_are_published_and_the_node_hears_of_it(node: FakeNode, publisher: Any) -> None:
    loop = HealthLoop(node, node, publisher, deadline_seconds=1, interval_seconds=0.01)
    await runs(loop, lambda: len(node.told) > 2)
    assert set(node.told) == {""}
    assert pb.BackendStatsResponse.FromString(publisher.bodies[BACKEND]).num_goroutine == 7
    assert "0.01" in repr(loop)


async def test_a_core_that_does_not_answer_is_told(node: FakeNode, publisher: Any) -> None:
    node.api.error = CoreApiError("no answer", ErrorKind.UNAVAILABLE)
    await runs(HealthLoop(node, node, publisher, deadline_seconds=1, interval_seconds=0.01), lambda: node.told)
    assert "no answer" in node.told[0]
    assert publisher.bodies == {}


async def test_a_core_that_was_ended_meanwhile_need_not_answer(node: FakeNode, publisher: Any) -> None:
    asked = asyncio.Event()

    async def ended(_deadline_seconds: float) -> SysStatsResponse:
        node.api = None
        asked.set()
        raise CoreApiError("closed", ErrorKind.UNAVAILABLE)

    node.api.sys_stats = ended
    await runs(HealthLoop(node, node, publisher, deadline_seconds=1, interval_seconds=0.01), asked.is_set)
    assert node.told == []


async def test_counters_are_read_and_stored(node: FakeNode) -> None:
    traffic: Any = FakeTraffic()
    loop = CounterLoop(node, node, traffic, traffic, traffic, generation=lambda: 3, interval_seconds=0.01)
    await runs(loop, lambda: traffic.stored > 2)
    assert set(traffic.polls) == {"run 1"}
    assert traffic.forgotten == [], "not so soon"
    assert "0.01" in repr(loop)
    traffic.polls.clear()
    traffic.error = "no answer"
    await runs(loop, lambda: len(traffic.polls) > 2)
    node.state = State.IDLE
    traffic.polls.clear()
    traffic.stored = 0
    await runs(loop, lambda: traffic.stored > 2)
    assert traffic.polls == []


async def test_removed_users_are_forgotten_now_and_then(node: FakeNode) -> None:
    traffic: Any = FakeTraffic()
    loop = CounterLoop(
        node, node, traffic, traffic, traffic, generation=lambda: 3, interval_seconds=0.01, forget_seconds=0.0
    )
    await runs(loop, lambda: len(traffic.forgotten) > 1)
    assert set(traffic.forgotten) == {3}


async def test_figures_are_published_when_they_are_news(publisher: Any) -> None:
    traffic: Any = FakeTraffic()
    loop = FiguresLoop(traffic, traffic, publisher, lambda: 99)
    task = asyncio.create_task(loop.run())
    traffic.news.set()
    await eventually(lambda: publisher.count == 1, "they are published")
    assert publisher.bodies[STATS_USERS] == b"block"
    assert Polled.decode(publisher.bodies[POLLED]) == Polled(1, 2, "", 3, 4, 99, {STATS_USERS: 1})
    traffic.news.set()
    await eventually(lambda: publisher.count == 2, "they are published again")
    await loop.publish_age()
    assert Polled.decode(publisher.bodies[POLLED]).since == {STATS_USERS: 3}
    await end_tasks([task])
    assert repr(loop) == "FiguresLoop()"


@pytest.mark.parametrize(("took_seconds", "pause_seconds"), [(0.001, 0.05), (0.1, 0.5), (20.0, 2.0)])
def test_a_bus_that_hung_holds_up_no_figures_for_long(took_seconds: float, pause_seconds: float) -> None:
    assert figures_pause(took_seconds) == pause_seconds


async def test_the_first_figures_are_tried_for_a_while(publisher: Any) -> None:
    traffic: Any = FakeTraffic()
    loop = FiguresLoop(traffic, traffic, publisher, lambda: 99)
    await loop.publish_first()
    assert publisher.count == 1
    publisher.works = False
    await loop.publish_first(0.2)
    assert publisher.count > 1


async def test_the_machine_s_load_is_published(publisher: Any) -> None:
    loop = SystemLoop(publisher, SystemSampler(Limits), interval_seconds=0.01)
    await runs(loop, lambda: publisher.count > 1)
    assert pb.SystemStatsResponse.FromString(publisher.bodies[SYSTEM]).mem_total > 0
    assert "0.01" in repr(loop)


async def test_a_turn_comes_earlier_when_somebody_asks() -> None:
    wake = asyncio.Event()
    wake.set()
    await asyncio.wait_for(wait_for_turn(3600, wake), 5)
    assert not wake.is_set()
    await wait_for_turn(0.01, wake)
