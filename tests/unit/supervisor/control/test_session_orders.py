"""What operators may want of one user's connections, and what they are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.os_support.tcp_ends import Connection
from pgnode.supervisor.control.messages import RefusedError
from pgnode.supervisor.control.session_orders import SessionOrders
from pgnode.supervisor.sessions.counts import SessionCounts
from pgnode.supervisor.sessions.plan import SHARED
from pgnode.testing.users import make_user
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.process.reach import UnreachableError
from tests.unit.supervisor.sessions.lines import line, ring_of, spec


class Parts:
    """A cutter, a node and a core, as far as they are asked."""

    def __init__(self, *lines: bytes) -> None:
        self.counts = SessionCounts()
        self.ring = ring_of(*lines)
        self.open: list[tuple[str, Connection]] = []
        self.error: Exception | None = None
        self.disconnected: list[tuple[str, str]] = []
        self.core_base: Any = SimpleNamespace(inbounds=[spec("in"), spec("grpc", transport="grpc")])
        self.api: Any = SimpleNamespace(stats=self)
        self.users = SimpleNamespace(table={"alice": make_user("Alice", []).SerializeToString()})
        self.orders = SessionOrders(cast("Any", self), cast("Any", self), cast("Any", self))

    async def connections(self) -> list[tuple[str, Connection]]:
        if self.error is not None:
            raise self.error
        return self.open

    def told_blocks(self) -> list[Any]:
        return list(self.ring.oldest_first())

    async def online(self, _seconds: float) -> dict[str, dict[str, int]]:
        return {"ALICE": {"[2001:db8::1]": 5, "192.0.2.1": 5}, "bob": {"2001:db8::1": 5}}

    async def disconnect(self, key: str, email: str) -> int:
        self.disconnected.append((key, email))
        return 2


async def test_a_users_connections_are_shown() -> None:
    parts = Parts(line("192.0.2.1:1", "Alice"), line("192.0.2.1:2", "bob"))
    ends = (("192.0.2.1", 1), ("192.0.2.1", 2), ("2001:db8::1", 3))
    parts.open = [("in", Connection(peer, port, "192.0.2.9", 443)) for peer, port in ends]
    found = await parts.orders.order({"do": "look", "user": "Alice"})
    assert found == {
        "sessions": [
            {"address": "192.0.2.1", "port": 1, "inbound": "in", "since": 0.0, "shared": False},
            {"address": "2001:db8::1", "port": 3, "inbound": "in", "since": None, "shared": True},
        ],
        "left": None,
    }
    parts.api = None
    assert (await parts.orders.order({"do": "look", "user": "Alice"}))["sessions"] == []
    assert repr(parts.orders).startswith("SessionOrders(")


async def test_they_are_ended_as_the_core_spells_the_user() -> None:
    parts = Parts()
    assert await parts.orders.order({"do": "disconnect", "user": "aLICE"}) == {"ended": 2, "left": None}
    assert (await parts.orders.order({"do": "disconnect", "user": "Gone"}))["ended"] == 2
    assert parts.disconnected == [("alice", "Alice"), ("gone", "Gone")]


async def test_what_was_left_is_told() -> None:
    parts = Parts()
    parts.counts.leave([("gone", SHARED)], 5.0)
    assert await parts.orders.order({"do": "left", "user": "Gone"}) == {
        "left": {"at": 5.0, "reasons": ["one connection carries several users"]}
    }


@pytest.mark.parametrize(
    "values", [{}, {"user": ""}, {"user": 5, "do": "look"}, {"user": "alice"}, {"user": "a", "do": "x"}]
)
async def test_what_is_not_understood_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        await Parts().orders.order(values)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UnreachableError("no way"), "cannot be seen: no way"),
        (OSError("not now"), "did not tell: not now"),
        (CoreApiError("not now", ErrorKind.UNAVAILABLE), "did not tell"),
    ],
)
async def test_a_core_that_tells_nothing_is_said(error: Exception, text: str) -> None:
    parts = Parts()
    parts.error = error
    with pytest.raises(RefusedError, match=text):
        await parts.orders.order({"do": "look", "user": "alice"})
