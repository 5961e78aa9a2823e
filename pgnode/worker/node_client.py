"""What one worker process holds, whichever face it serves: the client of the bus, the snapshots, the log, the service."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys

import structlog

from pgnode import __version__
from pgnode.api.service.node_service import NodeService
from pgnode.bus.activity import ActivityTeller
from pgnode.bus.client import CommandClient
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_reader import SnapshotReader
from pgnode.settings import Settings
from pgnode.worker.log_hub import LogHub
from pgnode.worker.snapshots import LocalSnapshots

log = structlog.get_logger(__name__)

#: A worker serves before its first look at the snapshots, but waits this long for it.
FIRST_LOOK_SECONDS = 2.0

#: A store that has not been heard for so long cannot be reached: a look at it is due every two seconds.
UNHEARD_SECONDS = 10.0

#: A read that would say "not running" looks for news first, this long at most.
REFRESH_SECONDS = 1.0


class NodeClient:
    """What one worker process holds."""

    def __init__(self, settings: Settings) -> None:
        keys = Keys(settings.redis_prefix)
        self._looking: asyncio.Task[None] | None = None
        self.reads = LocalSnapshots()
        self._snapshots = SnapshotReader(settings.bus_url, keys, self.reads.take)
        self.commands = CommandClient(settings.bus_url, keys, worker_name())
        self.activity = ActivityTeller(settings.bus_url, keys)
        self._logs = LogHub(settings.bus_url, keys, replay_lines=settings.startup_log_tail_size)
        self.service = NodeService(
            self.reads,
            self.commands,
            self._logs,
            self.refresh,
            write_timeout_seconds=settings.write_timeout_seconds,
            node_version=__version__,
            max_body_bytes=settings.max_body_bytes,
            on_call=self.activity.called,
        )

    async def refresh(self) -> None:
        """Look for news in the store now; whoever asks while a look is under way shares it."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await self._snapshots.poll()
        except BUS_ERRORS as error:
            log.debug("no news", error=str(error))

    async def start(self) -> None:
        self.commands.start()
        try:
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._snapshots.poll()
        except BUS_ERRORS as error:
            log.warning("worker starts without snapshots", error=str(error))
        self._snapshots.start()

    @property
    def serving(self) -> bool:
        """Whether answers are up to date: the store, and through it the supervisor, was heard of late."""
        polled_at = self._snapshots.polled_at
        known = polled_at is not None and self.reads.status is not None
        return known and asyncio.get_running_loop().time() - (polled_at or 0.0) < UNHEARD_SECONDS

    async def close(self) -> None:
        await self._snapshots.close()
        await self.commands.close()
        await self.activity.close()
        await self._logs.close()


def worker_name() -> str:
    """Unique among all workers on all hosts, also after a restart."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def set_up_logging() -> None:
    """Plain lines on stderr, which the supervisor passes on."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y/%m/%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=False,
                pad_event_to=0,
                pad_level=False,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
