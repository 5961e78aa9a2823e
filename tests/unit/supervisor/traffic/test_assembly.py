"""The parts of the traffic know each other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.bus.commands import Command, Kind
from pgnode.bus.keys import Keys
from pgnode.errors import CoreUnavailableError
from pgnode.settings import Settings
from pgnode.store.changes import Journal
from pgnode.supervisor.traffic.assembly import assemble_traffic
from pgnode.supervisor.traffic.lately_online import LatelyOnline
from pgnode.wire import service_pb2 as pb
from tests.unit.supervisor.traffic.fake_counters import IN, OUT, FakeCounters


async def test_what_a_core_counts_is_handed_out(tmp_path: Path) -> None:
    counters = FakeCounters()
    counters.move("alice", 100, 200)
    core: Any = SimpleNamespace(api=None, run_id="run")
    commits: list[int] = []

    async def commit() -> None:
        commits.append(1)

    traffic = assemble_traffic(
        Settings(state_dir=tmp_path, inbound_stats="off"),
        core,
        Journal(),
        cast(Any, None),
        Keys("t:"),
        commit=commit,
        tags=lambda: [("inbound", IN), ("outbound", OUT)],
        wanted=lambda _email: True,
        lately=LatelyOnline(),
    )
    body = pb.StatRequest(type=pb.UserStat, name="alice", reset=True).SerializeToString()
    command = Command("1-0", "1", Kind.TAKE_STATS, "worker", 10**15, body)
    with pytest.raises(CoreUnavailableError, match="no core runs"):
        await traffic.payouts.take(command)
    core.api = counters
    reply = await traffic.payouts.take(command)
    assert sum(stat.value for stat in pb.StatResponse.FromString(reply.body).stats) == 300
    assert not traffic.inbounds.ask(), "off is off"
    await traffic.storing.store_now()
    assert commits
    assert "Retention" in repr(traffic.retention)
