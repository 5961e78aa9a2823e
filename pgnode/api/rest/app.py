"""Puts the node's REST API together: the Falcon application, and the pipeline in front of it."""

from __future__ import annotations

from pgnode.api.auth import ApiKeys
from pgnode.api.call_audit import CallAudit
from pgnode.api.callers import WrongKeys
from pgnode.api.methods import METHODS
from pgnode.api.rest.auth_step import AuthStep
from pgnode.api.rest.body import DRAIN_SECONDS, BodyReader
from pgnode.api.rest.delivery import TrackedRoute
from pgnode.api.rest.falcon_app import falcon_app
from pgnode.api.rest.fast_path import CachedAnswer
from pgnode.api.rest.pipeline import RequestPipeline
from pgnode.api.service.node_service import NodeService
from pgnode.metrics.meter import FaceMeter


def build(
    service: NodeService,
    *,
    api_key: str | ApiKeys,
    max_body_bytes: int,
    body_timeout_seconds: float,
    meter: FaceMeter | None = None,
    wrong_keys: WrongKeys | None = None,
    audit: CallAudit | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> RequestPipeline:
    """Return the ASGI callable of the node's API, for scopes of type ``http``.

    Args:
        service: Answers the methods.
        api_key: The keys that callers may send, or one, a UUID; ValueError for anything else.
        max_body_bytes: Size of the largest body.
        body_timeout_seconds: Time for a whole body.
        meter: Counts the calls.
        wrong_keys: Counts those without a right key by address.
        audit: Takes note of those that change something.
        drain_seconds: Time for which the rest of a refused body is thrown away.

    Returns:
        The pipeline with the application behind it.
    """
    app = falcon_app(service)
    tracked = TrackedRoute(app, service.is_tracked)
    return RequestPipeline(
        app,
        METHODS,
        AuthStep(api_key, service.called),
        BodyReader(max_bytes=max_body_bytes, timeout_seconds=body_timeout_seconds, size_setting="MAX_BODY_MIB"),
        cached={
            row.route: CachedAnswer(getattr(service, row.cached_handler), service.stats_age if row.aged else None)
            for row in METHODS
            if row.cached
        },
        direct={row.route: getattr(service, row.handler) for row in METHODS if row.direct},
        tracked={row.route: tracked for row in METHODS if row.tracked},
        meter=meter,
        wrong_keys=wrong_keys,
        audit=audit,
        drain_seconds=drain_seconds,
    )
