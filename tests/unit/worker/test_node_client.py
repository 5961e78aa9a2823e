"""What one worker process holds, on a real bus, with a supervisor of which the test decides every answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.bus.activity import read_activity
from pgnode.bus.commands import Kind
from pgnode.bus.connection import connect
from pgnode.settings import Settings, load
from pgnode.settings.handover import ALONE_VARIABLE
from pgnode.wire import service_pb2 as pb
from pgnode.worker.node_client import NodeClient, _node, worker_name
from tests.support.polling import eventually
from tests.support.stub_supervisor import StubSupervisor
from tests.support.valkey import TestValkey


@pytest.fixture
def settings(valkey: TestValkey, tmp_path: Path) -> Settings:
    return load(redis_url=valkey.url, state_dir=tmp_path)


async def test_the_parts_are_wired_together(valkey: TestValkey, settings: Settings) -> None:
    supervisor = StubSupervisor(valkey.url)
    await supervisor.start()
    await supervisor.publish_all()
    client = NodeClient(settings)
    await client.start()
    redis = connect(valkey.url)
    try:
        await client.service.sync_user(pb.User(email="alice", inbounds=["x"]).SerializeToString())
        assert [command.kind for command in supervisor.commands] == [Kind.SYNC_USER]
        assert pb.SystemStatsResponse.FromString(client.service.system_stats(b"")).mem_total == 1000
        client.service.called()

        async def told() -> bool:
            return await read_activity(redis, supervisor.keys) > 0

        await supervisor.set_keep_alive(60)
        await eventually(
            lambda: client.follower.snapshots.status == supervisor.status, "the worker is to tell of calls"
        )
        client.service.called()
        await eventually(told, "calls are told")
        async with client.service.logs() as lines:
            await supervisor.log_lines([b"a line"])
            entry = await anext(lines)
            assert entry is not None
            assert entry[1] == b"a line"
        assert repr(client).startswith("NodeClient(CommandClient(")
    finally:
        await client.close()
        await supervisor.close()
        await redis.aclose()


def test_names_of_workers_are_unique() -> None:
    assert len({worker_name() for _ in range(100)}) == 100


def test_one_on_its_own_belongs_to_whoever_has_the_prefix(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    assert _node(settings) is not None
    monkeypatch.setenv(ALONE_VARIABLE, "rest")
    assert _node(settings) is None
