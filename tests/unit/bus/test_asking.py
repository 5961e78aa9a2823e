"""An operator's question, over a real Valkey."""

from __future__ import annotations

from pgnode.bus.asking import ask
from pgnode.bus.commands import Kind, Reply
from pgnode.errors import InternalError
from tests.support.bus_ends import SHORT_WAITS
from tests.support.stub_supervisor import StubSupervisor
from tests.support.valkey import TestValkey


async def test_the_supervisor_is_asked(valkey: TestValkey) -> None:
    supervisor = StubSupervisor(valkey.url)
    supervisor.handlers[Kind.LATENCY] = lambda _: Reply(body=b"these")
    supervisor.handlers[Kind.STORE_TRAFFIC] = lambda _: Reply(error=InternalError("it cannot"))
    await supervisor.start()
    assert await ask(valkey.url, supervisor.keys, Kind.LATENCY) == b"these"
    assert await ask(valkey.url, supervisor.keys, Kind.STORE_TRAFFIC) is None
    await supervisor.close()
    assert await ask(valkey.url, supervisor.keys, Kind.LATENCY, ask_seconds=0, waits=SHORT_WAITS) is None
