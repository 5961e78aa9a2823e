"""What a running node says of its users, asked over a real Valkey."""

from __future__ import annotations

from pgnode.bus.commands import Kind, Reply
from pgnode.bus.connection import connect
from pgnode.bus.operator_views import UserDrift
from pgnode.bus.users import ask_who_waits, read_status
from tests.support.bus_ends import SHORT_WAITS
from tests.support.stub_supervisor import RUNNING, StubSupervisor
from tests.support.valkey import TestValkey

DRIFT = UserDrift(frozenset({"alice", "bob"}), frozenset({"carol"}), frozenset({"bob"}))


async def test_the_supervisor_is_asked(valkey: TestValkey) -> None:
    supervisor = StubSupervisor(valkey.url)
    supervisor.handlers[Kind.WAITING_USERS] = lambda _: Reply(body=DRIFT.encode())
    await supervisor.start()
    redis = connect(valkey.url)
    assert await read_status(redis, supervisor.keys) is None
    await supervisor.publish_all()
    assert await read_status(redis, supervisor.keys) == RUNNING
    assert await ask_who_waits(valkey.url, supervisor.keys) == DRIFT
    await supervisor.close()
    assert await ask_who_waits(valkey.url, supervisor.keys, ask_seconds=0, waits=SHORT_WAITS) is None
    await redis.aclose()
