"""The ASGI application of a worker: connects to the bus, and passes each request to the application of its port."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import structlog

from pgnode import __version__
from pgnode.api.auth import ApiKeys
from pgnode.api.call_audit import CallAudit
from pgnode.api.callers import WrongKeys
from pgnode.api.rest import maintenance
from pgnode.api.rest.app import build
from pgnode.api.rest.observation import WithObservation
from pgnode.api.rest.whole_answers import FindAnswer
from pgnode.api.service.maintenance import MaintenanceService
from pgnode.api.service.observation import Observation
from pgnode.settings.handover import load_handed_over
from pgnode.worker.api_keys import KeyFollower
from pgnode.worker.asgi_worker import closed_as_not_allowed, cut_off, open_connections
from pgnode.worker.logging import set_up_logging
from pgnode.worker.meeting import Meeting
from pgnode.worker.node_client import NodeClient
from pgnode.worker.own_metrics import own_metrics
from pgnode.worker.reporting import MONITOR, WorkerFacts

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

log = structlog.get_logger(__name__)

_FACTS = WorkerFacts(
    "rest", connections=lambda: {"rest": open_connections()}, cut_off=cut_off, not_allowed=closed_as_not_allowed
)

#: New objects between two walks of the garbage collector through the newest ones. What 64 requests that wait for the
#: supervisor hold is more than the usual 700, so it would be walked again and again: 6 % of the worker's time (perf,
#: PUT /user/sync).
GC_THRESHOLD = 10_000

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Apps:
    """What this worker serves over HTTP: the node's API, and maintenance on a port of its own.

    Args:
        client: What the worker holds.
        settings: The node's settings.
        keys: The keys that are valid.
    """

    def __init__(self, client: NodeClient, settings: Settings, keys: ApiKeys) -> None:
        #: Takes note of calls that change something.
        self.audit = CallAudit(keys)
        wrong_keys = WrongKeys(settings.wrong_key_limit, time.monotonic, _too_many_wrong_keys)
        self.rest = build(
            client.service,
            api_key=keys,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_seconds=settings.body_timeout_seconds,
            meter=client.meter.face("rest"),
            wrong_keys=wrong_keys,
            audit=self.audit,
        )
        self.api_port = settings.api_port
        maintenance_app = maintenance.build(
            MaintenanceService(
                client.follower.snapshots,
                client.commands,
                client.follower.refresh,
                job_timeout_seconds=settings.maintenance_timeout_seconds,
                write_timeout_seconds=settings.write_timeout_seconds,
                node_version=__version__,
            ),
            api_key=keys,
            body_timeout_seconds=settings.body_timeout_seconds,
            called=client.activity.called,
            meter=client.meter.face("maintenance"),
            wrong_keys=wrong_keys,
            audit=self.audit,
        )
        snapshots = client.follower.snapshots

        def own(accept: str) -> tuple[str, bytes]:
            core_version = snapshots.status.core_version if snapshots.status is not None else ""
            return own_metrics(client.reporter.figures(), core_version, accept)

        self.maintenance = WithObservation(
            Observation(snapshots, client.commands, own),
            maintenance_app,
            api_key=keys,
            metrics_key=settings.metrics_key,
            body_timeout_seconds=settings.body_timeout_seconds,
            meter=client.meter.face(MONITOR),
            wrong_keys=wrong_keys,
        )


def _too_many_wrong_keys(host: str, more_before: int) -> None:
    log.warning(
        "calls without the right API key: each costs the connection",
        audit="caller",
        caller=host,
        more_before=more_before,
    )


class Application:
    """The ASGI callable that Gunicorn loads in each worker; what is behind it is made by the lifespan."""

    def __init__(self) -> None:
        self._apps: Apps | None = None

    def __repr__(self) -> str:
        return f"Application({'alive' if self._apps is not None else 'not started'})"

    def whole_answers(self, port: int) -> FindAnswer | None:
        """Return what answers requests of which everything is there, for a port; None where nothing does."""
        apps = self._apps
        return apps.rest.whole.find if apps is not None and port != apps.api_port else None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request by the application of the port on which its connection came in.

        Args:
            scope: The connection; of type "http" or "lifespan".
            receive: Gives what the caller sends.
            send: Takes the answer.

        Returns:
            What answers it.

        Raises:
            ValueError: It is a connection of another type.
        """
        apps = self._apps
        if apps is not None and scope["type"] == "http":
            server = scope["server"]
            app = apps.maintenance if server is not None and server[1] == apps.api_port else apps.rest
            return app(scope, receive, send)
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        raise ValueError(f"no {scope['type']} connections here")

    async def _live(self, receive: Receive, send: Send) -> None:
        """Connect to the bus, say so, and disconnect when told to."""
        await receive()
        set_up_logging("rest")
        try:
            settings = load_handed_over()
            client = NodeClient(settings, _FACTS)
            follower = KeyFollower(settings)
            meeting = Meeting(follower.keys, takes_keys=follower.is_told)
            client.follower.snapshots.tell(meeting.met)
            self._apps = Apps(client, settings, follower.keys)
            await client.start()
            follower.start()
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
        self._apps.audit.tell()
        meeting.close()
        await follower.close()
        await client.close()
        await send({"type": "lifespan.shutdown.complete"})


application = Application()
