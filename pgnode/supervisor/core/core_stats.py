"""The core's own figures: memory, garbage collections, age. Reading them is also how the node learns that its API hangs."""

from __future__ import annotations

from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.api import CoreApi
from pgnode.xray.proto.stats_command_pb2 import SysStatsResponse


async def read_core_stats(api: CoreApi, deadline_seconds: float) -> pb.BackendStatsResponse:
    """Ask the core for its figures.

    Args:
        api: The core.
        deadline_seconds: Seconds that the answer may take.

    Returns:
        The figures in the node's message.

    Raises:
        CoreApiError: The core did not answer.
    """
    return core_stats(await api.stats.sys_stats(deadline_seconds))


def core_stats(stats: SysStatsResponse) -> pb.BackendStatsResponse:
    """Return the core's figures in the node's message."""
    return pb.BackendStatsResponse(
        num_goroutine=stats.NumGoroutine,
        num_gc=stats.NumGC,
        alloc=stats.Alloc,
        total_alloc=stats.TotalAlloc,
        sys=stats.Sys,
        mallocs=stats.Mallocs,
        frees=stats.Frees,
        live_objects=stats.LiveObjects,
        pause_total_ns=stats.PauseTotalNs,
        uptime=stats.Uptime,
    )
