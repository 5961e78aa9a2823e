"""The ASGI application of one worker process: lifespan connects it to the bus, requests go to the REST face."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from pgnode import __version__
from pgnode.api.maintenance import MaintenanceService
from pgnode.api.rest import maintenance
from pgnode.api.rest.app import build
from pgnode.api.service import NodeService
from pgnode.bus.activity import ActivityTeller
from pgnode.bus.client import CommandClient
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import SnapshotReader
from pgnode.settings import Settings, load, read_api_key
from pgnode.worker.local import LocalReads
from pgnode.worker.log_hub import LogHub

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: A worker serves before its first look at the snapshots, but waits this long for it.
FIRST_LOOK_SECONDS = 2.0

#: A read that would say "not running" looks for news first, this long at most.
REFRESH_SECONDS = 1.0


class Worker:
    """What one worker process holds."""

    def __init__(self, settings: Settings) -> None:
        keys = Keys(settings.redis_prefix)
        self._looking: asyncio.Task[None] | None = None
        self._reads = LocalReads()
        self._snapshots = SnapshotReader(settings.bus_url, keys, self._reads.take)
        self._commands = CommandClient(settings.bus_url, keys, worker_name())
        self._activity = ActivityTeller(settings.bus_url, keys)
        self._logs = LogHub(settings.bus_url, keys, replay_lines=settings.startup_log_tail_size)
        service = NodeService(
            self._reads,
            self._commands,
            self._logs,
            self._refresh,
            write_timeout_seconds=settings.write_timeout_seconds,
            node_version=__version__,
            on_call=self._activity.called,
        )
        api_key = read_api_key(settings)
        self._rest = build(
            service,
            api_key=api_key,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_seconds=settings.body_timeout_seconds,
        )
        self._api_port = settings.api_port
        self._maintenance = maintenance.build(
            MaintenanceService(
                self._reads,
                self._commands,
                self._refresh,
                job_timeout_seconds=settings.maintenance_timeout_seconds,
                write_timeout_seconds=settings.write_timeout_seconds,
                node_version=__version__,
            ),
            api_key=api_key,
            body_timeout_seconds=settings.body_timeout_seconds,
            called=self._activity.called,
        )

    def serve(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The face that belongs to the port on which the connection came in."""
        server = scope["server"]
        face = self._maintenance if server is not None and server[1] == self._api_port else self._rest
        return face(scope, receive, send)

    async def _refresh(self) -> None:
        """Look for news in the store now; whoever asks while a look is under way shares it."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await self._snapshots.look()
        except BUS_ERRORS as error:
            log.debug("no news", error=str(error))

    async def start(self) -> None:
        self._commands.start()
        try:
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._snapshots.look()
        except BUS_ERRORS as error:
            log.warning("worker starts without snapshots", error=str(error))
        self._snapshots.start()

    async def close(self) -> None:
        await self._snapshots.close()
        await self._commands.close()
        await self._activity.close()
        await self._logs.close()


def worker_name() -> str:
    """Unique among all workers on all hosts, also after a restart."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Application:
    """The ASGI callable that Gunicorn loads; the worker behind it is made in each process, by its lifespan."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._serve: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._serve is not None:
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise ValueError(f"no {scope['type']} connections here")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        set_up_logging()
        try:
            self._worker = Worker(load())
            await self._worker.start()
        except Exception as error:
            log.exception("worker cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._serve = self._worker.serve
        # What is loaded by now stays: the collector need not walk it again and again while requests are answered.
        gc.collect()
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._worker.close()
        await send({"type": "lifespan.shutdown.complete"})


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


application = Application()
