"""Figures are gathered from a supervisor's parts as they are, also where some do not answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgnode.bus.commands import Command, Kind
from pgnode.bus.reports import Report
from pgnode.os_support.aio import end_tasks
from pgnode.settings import load
from pgnode.settings.handover import Handover
from pgnode.supervisor.composition import Components, compose
from pgnode.supervisor.figures.source import TYPE_END, FigureSource
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.support.valkey import running_valkey

#: Why a supervisor that has just begun is not ready.
NOTHING_KNOWN = "the supervisor has just begun and does not know yet whether a core runs"


@pytest.fixture
def parts(tmp_path: Path) -> Components:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "geoip.dat").write_bytes(b"")
    return compose(load(state_dir=str(tmp_path), grpc_workers=3), Handover(0))


def command(kind: Kind, body: bytes = b"") -> Command:
    return Command("1-1", "id", kind, "worker", 1000, body)


async def test_a_node_of_which_nothing_answers(parts: Components) -> None:
    figures = await parts.source.gather()
    assert figures.bus.round_trip_seconds is None
    assert figures.workers.wanted == {"rest": 2, "grpc": 3}
    assert set(figures.host.processes) == {"supervisor"}
    assert figures.store_bytes is None
    assert set(figures.geofiles) == {"geoip"}
    assert figures.core.uptime_seconds is None
    assert (figures.certificate_until, figures.workers.last_call_at) == (None, None)
    assert repr(parts.source).startswith("FigureSource(since ")


async def test_the_bus_tells_how_it_is_and_reports_are_taken(tmp_path: Path) -> None:
    async with running_valkey() as valkey:
        parts = compose(load(state_dir=str(tmp_path), redis_url=valkey.url), Handover(0))
        await parts.source.gather()
        report = Report(1, "rest", {"calls/rest/GetStats/OK": 2}, idle_seconds=0)
        await parts.bus.redis.hset("pgnode:reports", "a", report.encode())
        figures = await parts.source.gather()
        await parts.bus.redis.aclose()
    assert figures.bus.commands_waiting == 0
    assert (figures.bus.memory_bytes or 0) > 0
    assert figures.workers.sums.counts == {"calls/rest/GetStats/OK": 2}
    assert figures.workers.last_call_at is not None
    assert set(figures.host.processes) == {"supervisor"}, "a Valkey of somebody else is not looked at"


async def test_pauses_of_the_cores_collector_are_added_up(parts: Components) -> None:
    told: list[tuple[str, pb.BackendStatsResponse]] = []
    source = FigureSource(replace(parts.source.sources, core_told=lambda: told[-1]))
    for run, pause_ns, expected in (("1", 7_000, 0), ("1", 9_000, 2_000), ("2", 500, 2_500), ("2", 600, 2_600)):
        told.append((run, pb.BackendStatsResponse(pause_total_ns=pause_ns, uptime=5)))
        figures = await source.gather()
        assert round(figures.core.gc_pause_seconds * 1e9) == expected
    assert figures.core.uptime_seconds is None, "no core runs"


async def test_the_figures_of_the_core_that_runs(parts: Components) -> None:
    running = cast(Any, SimpleNamespace(running=SimpleNamespace(pid=1), run_id="1"))
    for run, expected in (("1", 5), ("0", None)):
        told = (run, pb.BackendStatsResponse(uptime=5, num_goroutine=6, alloc=7, sys=8))
        source = FigureSource(replace(parts.source.sources, core=running, core_told=lambda told=told: told))  # type: ignore[misc]
        core = (await source.gather()).core
        assert core.uptime_seconds == expected


async def test_the_answers_to_workers(parts: Components) -> None:
    reply = await parts.source.metrics(command(Kind.METRICS, b"application/openmetrics-text"))
    assert reply.lent == 1
    content_type, _, text = reply.parts[0].partition(TYPE_END)
    assert content_type.startswith(b"application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert json.loads(await parts.source.ready(command(Kind.READY))) == {"ready": False, "because": [NOTHING_KNOWN]}


async def test_the_pages_of_the_port(parts: Components) -> None:
    pages = parts.source.pages
    metrics = await pages["/metrics"]("")
    names = {metric.name for metric in text_string_to_metric_families(metrics.body.decode())}
    assert "pgnode_supervisor_up" in names
    assert "pgnode_bus_round_trip_seconds" not in names, "the bus does not answer"
    assert (await pages["/livez"]("")).status == 200
    ready = await pages["/readyz"]("")
    because = ["the bus (Redis) does not answer", NOTHING_KNOWN]
    assert (ready.status, json.loads(ready.body)["because"]) == (503, because)
    health = await pages["/health"]("")
    assert (health.status, json.loads(health.body)) == (503, {"core_up": False, "state": "restoring"})


async def test_it_takes_reports_until_it_is_cancelled(parts: Components) -> None:
    source: FigureSource = parts.source
    task = asyncio.create_task(source.run())

    async def measured() -> bool:
        return (await source.gather()).host.lag_seconds > 0

    await eventually(measured, "the event loop is measured")
    await end_tasks([task])
