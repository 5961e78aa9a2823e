"""The core's own figures in the node's message."""

from __future__ import annotations

from unittest import mock

from pgnode.supervisor.core.core_stats import core_stats, read_core_stats
from pgnode.xray.proto.stats_command_pb2 import SysStatsResponse

STATS = SysStatsResponse(
    NumGoroutine=1,
    NumGC=2,
    Alloc=3,
    TotalAlloc=4,
    Sys=5,
    Mallocs=6,
    Frees=7,
    LiveObjects=8,
    PauseTotalNs=9,
    Uptime=10,
)


def test_every_figure_is_passed_on() -> None:
    assert [value for _, value in core_stats(STATS).ListFields()] == list(range(1, 11))


async def test_the_core_is_asked_within_a_deadline() -> None:
    api = mock.Mock(spec_set=["stats"])
    api.stats.sys_stats = mock.AsyncMock(return_value=STATS)
    assert await read_core_stats(api, 2.5) == core_stats(STATS)
    api.stats.sys_stats.assert_awaited_once_with(2.5)
