"""Answers whoever looks at the node live: how it is, what moves, and what the workers do; from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from pgnode.supervisor.control.live_report import NOTHING, LiveReport, calls_of, flows_of, workers_of
from pgnode.supervisor.figures.worker_sums import WorkerSums
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.traffic.figures import TrafficFigures


class LiveAnswers:
    """Belongs to the supervisor's loop.

    Args:
        status: Says how the node is.
        collector: Reads the core.
        figures: What was read.
        workers: What workers count.
    """

    def __init__(
        self,
        status: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]],
        collector: TrafficCollector,
        figures: TrafficFigures,
        workers: WorkerSums,
    ) -> None:
        self._status = status
        self._collector = collector
        self._figures = figures
        self._workers = workers
        #: What moved most by the last reading that was looked at, and which one that was: its number and its seconds.
        self._flows = NOTHING
        self._sorted_reading = (0, 0.0)
        self._sorting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"LiveAnswers({self._figures.watch!r})"

    async def live(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Say how the node is, under ``status``, and what moves, under ``live``."""
        status = await self._status(values)
        return {"status": status, "live": (await self.report()).encode()}

    async def traffic(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Store what was counted so far, and say how old it is, and who is online."""
        collector = self._collector
        await collector.store_now()
        status = await self._status(values)
        return {
            "state": status.get("state"),
            "core_run": status.get("core", {}).get("run", 0),
            "polled": asdict(collector.polled()),
            "online": await collector.online_addresses(),
        }

    async def report(self) -> LiveReport:
        """Put together what is in memory; from now on what moves is kept for some time."""
        collector, ledger, moved = self._collector, self._figures.ledger, self._figures.watch.look()

        def total(counter: str) -> int:
            entry = ledger.get(counter)
            return entry.total if entry is not None else 0

        # Those who moved something may be a hundred thousand: they are sorted once a reading, however many look.
        async with self._sorting:
            reading = (moved.number, moved.seconds)
            if reading != self._sorted_reading:
                self._flows = await asyncio.to_thread(flows_of, moved, total, collector.addresses_of)
                self._sorted_reading = reading
            flows = self._flows
        polled, (online, addresses) = collector.polled(), collector.online
        calls, errors = calls_of(self._workers.sums.counts)
        return LiveReport(
            reading=moved.number,
            reading_seconds=round(moved.seconds, 3),
            read_seconds_ago=None if polled.age_ms is None else polled.age_ms / 1000,
            read_error=polled.error,
            interval_seconds=polled.interval_ms / 1000,
            inbounds_counted=polled.inbounds_counted,
            online=online,
            addresses=addresses,
            up=flows.up,
            down=flows.down,
            users=flows.by_kind["user"],
            users_moving=flows.users,
            inbounds=flows.by_kind["inbound"],
            outbounds=flows.by_kind["outbound"],
            calls=calls,
            errors=errors,
            workers=workers_of(self._workers.alive),
        )
