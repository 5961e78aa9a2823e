"""A worker's copy of the snapshots: there soon, asked for when needed, and known to be old when nobody is heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from unittest import mock

import pytest

from pgnode.bus.snapshots import STATE, SYSTEM, Snapshot
from pgnode.bus.state import State
from pgnode.worker.snapshot_follower import SnapshotFollower
from tests.support.polling import eventually, next_turn
from tests.support.stub_supervisor import StubSupervisor
from tests.support.valkey import TestValkey


@pytest.fixture
async def supervisor(valkey: TestValkey) -> AsyncIterator[StubSupervisor]:
    stub = StubSupervisor(valkey.url)
    yield stub
    await stub.close()


@pytest.fixture
async def follower(valkey: TestValkey, supervisor: StubSupervisor) -> AsyncIterator[SnapshotFollower]:
    made = SnapshotFollower(valkey.url, supervisor.keys)
    yield made
    await made.close()


async def test_what_is_there_is_known_when_it_starts(supervisor: StubSupervisor, follower: SnapshotFollower) -> None:
    assert not follower.is_up_to_date()
    await supervisor.publish_all()
    await follower.start()
    assert follower.snapshots.status is not None
    assert follower.snapshots.status.state is State.RUNNING
    assert follower.is_up_to_date()
    assert repr(follower) == "SnapshotFollower(LocalSnapshots(running, 6))"
    await supervisor.set_state("recovering")
    await eventually(lambda: follower.snapshots.status == supervisor.status, "news come by themselves")


async def test_news_are_asked_for_together(supervisor: StubSupervisor, follower: SnapshotFollower) -> None:
    await supervisor.publish_all()
    with mock.patch.object(follower._reader, "poll", wraps=follower._reader.poll) as polled:
        await asyncio.gather(*(follower.refresh() for _ in range(10)))
        assert polled.call_count == 1
        await follower.refresh()
        assert polled.call_count == 2
    assert follower.snapshots.body(SYSTEM)


async def test_a_caller_that_goes_does_not_stop_it_for_others(
    supervisor: StubSupervisor, follower: SnapshotFollower
) -> None:
    await supervisor.publish_all()
    one, two = asyncio.create_task(follower.refresh()), asyncio.create_task(follower.refresh())
    await next_turn()
    one.cancel()
    await two
    assert follower.snapshots.body(SYSTEM)


async def test_a_worker_starts_without_a_store_and_says_that_it_knows_nothing(
    valkey: TestValkey, follower: SnapshotFollower
) -> None:
    valkey.kill()
    await follower.start()
    await follower.refresh()
    assert not follower.is_up_to_date()


async def test_a_store_that_is_not_heard_for_long_is_not_up_to_date(
    valkey: TestValkey, supervisor: StubSupervisor, follower: SnapshotFollower
) -> None:
    await supervisor.publish_all()
    await follower.refresh()
    assert follower.is_up_to_date()
    impatient = SnapshotFollower(valkey.url, supervisor.keys, unheard_seconds=0)
    await impatient.refresh()
    assert not impatient.is_up_to_date()
    await impatient.close()


async def test_a_node_that_is_drained_does_not_serve(supervisor: StubSupervisor, follower: SnapshotFollower) -> None:
    assert not follower.is_serving()
    await supervisor.publish_all()
    await follower.refresh()
    assert follower.is_serving()
    status = follower.snapshots.status
    assert status is not None
    follower.snapshots.take(Snapshot(STATE, 1 << 40, 0, replace(status, draining="the node is being drained").encode()))
    assert (follower.is_up_to_date(), follower.is_serving()) == (True, False)
