"""Nobody is looked after where nobody is connected; what is not known counts as somebody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.os_support.tcp_ends import Connection, Seen
from pgnode.supervisor.sessions.anybody import Anybody
from pgnode.supervisor.users.decoding import Inbounds
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.process.reach import UnreachableError
from pgnode.xray.process.reach_messages import Question
from tests.unit.supervisor.sessions.lines import spec

TCP: Inbounds = {"in": spec("in")}
BOTH: Inbounds = {"in": spec("in"), "both": spec("both", port=444, kinds=frozenset({"tcp", "udp"}))}
UDP: Inbounds = {"udp": spec("udp", kinds=frozenset({"udp"}))}


class Core:
    """A core with connections, and with users who are online."""

    def __init__(self) -> None:
        self.api = cast("Any", SimpleNamespace(stats=self))
        self.running = cast("Any", object())
        self.open: list[tuple[int, Connection]] = []
        self.online: set[str] = set()
        self.looked = 0
        self.fault: Exception | None = None

    async def look(self, _running: Any, asked: Question) -> Seen:
        assert asked.listed
        assert not asked.targets
        self.looked += 1
        if self.fault is not None:
            raise self.fault
        return Seen(list(self.open))

    async def online_users(self, _seconds: float) -> set[str]:
        return self.online


async def test_nobody() -> None:
    core = Core()
    core.online = {"alice"}
    assert not await Anybody(core.look, 1.0).is_connected(core.running, core.api, TCP)


async def test_somebody_is_remembered_for_a_while() -> None:
    core = Core()
    core.open = [(0, Connection("192.0.2.1", 1, "192.0.2.9", 443))]
    anybody = Anybody(core.look, 1.0)
    for _ in range(3):
        assert await anybody.is_connected(core.running, core.api, TCP)
    assert core.looked == 1
    again = Anybody(core.look, 1.0, connected_seconds=0)
    assert await again.is_connected(core.running, core.api, TCP)
    core.open.clear()
    assert not await again.is_connected(core.running, core.api, TCP)


async def test_where_users_come_without_connections_who_is_online_counts() -> None:
    core = Core()
    core.online = {"alice"}
    assert await Anybody(core.look, 1.0).is_connected(core.running, core.api, BOTH)
    core.online.clear()
    assert not await Anybody(core.look, 1.0).is_connected(core.running, core.api, BOTH)


async def test_an_inbound_whose_connections_do_not_show_counts_as_somebody() -> None:
    core = Core()
    assert await Anybody(core.look, 1.0).is_connected(core.running, core.api, UDP)
    assert core.looked == 0


async def test_without_a_core_nothing_is_known() -> None:
    core = Core()
    assert await Anybody(core.look, 1.0).is_connected(None, core.api, TCP)
    assert await Anybody(core.look, 1.0).is_connected(core.running, None, TCP)


@pytest.mark.parametrize(
    "fault", [UnreachableError("no"), OSError("no"), CoreApiError("no", ErrorKind.UNAVAILABLE), KeyError("a fault")]
)
async def test_what_fails_counts_as_somebody(fault: Exception) -> None:
    core = Core()
    core.fault = fault
    anybody = Anybody(core.look, 1.0)
    assert await anybody.is_connected(core.running, core.api, TCP)
    core.fault = None
    assert not await anybody.is_connected(core.running, core.api, TCP)
