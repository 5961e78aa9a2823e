"""What one worker process holds, whatever it serves: the bus's client, the snapshots, the log, and the service over them."""

from __future__ import annotations

import asyncio
import os
import secrets
from time import perf_counter
from typing import TYPE_CHECKING

from pgnode import __version__
from pgnode.api.service.node_service import NodeService
from pgnode.bus.activity import ActivityTeller
from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Kind
from pgnode.bus.keys import Keys
from pgnode.bus.log_stream import LogReader
from pgnode.bus.ownership import Owner, this_node
from pgnode.bus.report_channel import ReportWriter
from pgnode.metrics.meter import Meter
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.heap import HeapTrimmer
from pgnode.os_support.host_name import host_name
from pgnode.os_support.lasting import keep_going
from pgnode.os_support.open_files import OpenFilesWatch
from pgnode.settings.handover import runs_alone
from pgnode.worker.log_hub import LogHub
from pgnode.worker.reporting import WorkerFacts, WorkerReporter
from pgnode.worker.snapshot_follower import SnapshotFollower

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

#: Seconds that the supervisor has to take in that somebody watches the log.
WATCH_SECONDS = 2.0

#: Seconds that it has to write a large snapshot where workers of other hosts can fetch it.
BRING_SECONDS = 4.0


class NodeClient:
    """Puts these together; they are connected from :meth:`start` to :meth:`close`.

    Attributes:
        follower: Keeps the snapshots up to date.
        commands: Asks the supervisor.
        activity: Tells the supervisor of calls.
        service: Answers callers.
        meter: Counts calls.
        reporter: Tells the supervisor how this worker is.

    Args:
        settings: The node's settings.
        facts: What the worker knows of itself, for its reports.
    """

    def __init__(self, settings: Settings, facts: WorkerFacts | None = None) -> None:
        keys = Keys(settings.bus_prefix)
        name = worker_name()
        self.meter = Meter(perf_counter)
        self.follower = SnapshotFollower(settings.bus_url, keys, bring=self._bring if runs_alone() else None)
        self._memory = HeapTrimmer()
        self.commands = CommandClient(settings.bus_url, keys, name, _node(settings), large_ended=self._memory.soon)
        self.activity = ActivityTeller(settings.bus_url, keys)
        self._logs = LogHub(
            LogReader(settings.bus_url, keys),
            lambda watch: self.commands.call(Kind.WATCH_LOGS, watch.encode(), WATCH_SECONDS),
            replay_lines=settings.startup_log_tail_size,
        )
        self._files = OpenFilesWatch()
        self.reporter = WorkerReporter(
            facts if facts is not None else WorkerFacts("rest"),
            self.meter,
            ReportWriter(settings.bus_url, keys, name),
            log_viewers=lambda: len(self._logs),
            files=self._files,
        )
        self._watching: asyncio.Task[None] | None = None
        self.service = NodeService(
            self.follower.snapshots,
            self.commands,
            self._logs,
            self.follower.refresh,
            write_timeout_seconds=settings.write_timeout_seconds,
            node_version=__version__,
            max_body_bytes=settings.max_body_bytes,
            on_call=self.activity.called,
        )

    def __repr__(self) -> str:
        return f"NodeClient({self.commands!r}, {self.follower!r})"

    async def _bring(self, name: str) -> int:
        """Have the supervisor write a large snapshot where other hosts can fetch it; returns its revision."""
        return int(await self.commands.call(Kind.BRING, name.encode(), BRING_SECONDS))

    async def start(self) -> None:
        """Connect. Returns also when Redis is away: then calls are refused until it is back."""
        self._watching = asyncio.create_task(keep_going("open files", self._files.run))
        self.commands.start()
        await self.follower.start()
        self.reporter.start()

    async def close(self) -> None:
        """Disconnect; callers who wait are told."""
        if self._watching is not None:
            await end_tasks([self._watching])
        await self.follower.close()
        await self.commands.close()
        await self.activity.close()
        await self._logs.close()
        await self.reporter.close()


def _node(settings: Settings) -> Owner | None:
    """Name the node that this worker belongs to, where others may use its Redis; one on its own serves whoever has the prefix."""
    if runs_alone():
        return None
    return this_node(settings.state_dir) if settings.redis_url is not None and settings.state_dir.is_dir() else None


def worker_name() -> str:
    """Make a name that is unique among all workers on all hosts, also after a restart."""
    return f"{host_name()}:{os.getpid()}:{secrets.token_hex(4)}"
