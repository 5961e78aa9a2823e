"""The ASGI application of one worker process: lifespan connects it to the bus, requests go to the face of their port."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from pgnode import __version__
from pgnode.api.rest import maintenance
from pgnode.api.rest.app import build
from pgnode.api.service.maintenance import MaintenanceService
from pgnode.settings import Settings, load, read_api_key
from pgnode.worker.node_client import NodeClient, set_up_logging

log = structlog.get_logger(__name__)

#: New objects between two looks of the garbage collector at the newest ones. What 64 requests that wait for the supervisor hold
#: is more than the usual 700, so it would be walked again and again: 6 % of the worker's time (perf, PUT /user/sync).
GC_THRESHOLD = 10_000

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Faces:
    """What this worker serves over HTTP: the node's API, and maintenance on a port of its own."""

    def __init__(self, worker: NodeClient, settings: Settings) -> None:
        api_key = read_api_key(settings)
        self.rest = build(
            worker.service,
            api_key=api_key,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_seconds=settings.body_timeout_seconds,
        )
        self.api_port = settings.api_port
        self.maintenance = maintenance.build(
            MaintenanceService(
                worker.reads,
                worker.commands,
                worker.refresh,
                job_timeout_seconds=settings.maintenance_timeout_seconds,
                write_timeout_seconds=settings.write_timeout_seconds,
                node_version=__version__,
            ),
            api_key=api_key,
            body_timeout_seconds=settings.body_timeout_seconds,
            called=worker.activity.called,
        )


class Application:
    """The ASGI callable that Gunicorn loads; the worker behind it is made in each process, by its lifespan."""

    def __init__(self) -> None:
        self._worker: NodeClient | None = None
        self._faces: Faces | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        faces = self._faces
        if faces is not None and scope["type"] == "http":
            # The port on which the connection came in decides.
            server = scope["server"]
            face = faces.maintenance if server is not None and server[1] == faces.api_port else faces.rest
            return face(scope, receive, send)
        if scope["type"] == "lifespan":
            return self._lifespan(receive, send)
        raise ValueError(f"no {scope['type']} connections here")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        set_up_logging()
        try:
            settings = load()
            self._worker = NodeClient(settings)
            self._faces = Faces(self._worker, settings)
            await self._worker.start()
        except Exception as error:
            log.exception("worker cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        # What is loaded by now stays: the collector need not walk it again and again while requests are answered.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._worker.close()
        await send({"type": "lifespan.shutdown.complete"})


application = Application()
