"""The maintenance API over HTTP: JSON in, JSON out, behind a pipeline with the node's keys and a small limit of size.

Errors have the node's form and, since panels read only that, the text once more as ``detail``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pgnode.api.auth import ApiKeys
from pgnode.api.call_audit import CallAudit
from pgnode.api.callers import WrongKeys
from pgnode.api.rest.asgi import App, Receive, Scope, Send
from pgnode.api.rest.auth_step import AuthStep
from pgnode.api.rest.body import DRAIN_SECONDS, BodyReader
from pgnode.api.rest.context import context_of
from pgnode.api.rest.errors import DETAIL_FORM, ErrorForm, answerable, send_error
from pgnode.api.rest.negotiation import JSON
from pgnode.api.rest.pipeline import RequestPipeline
from pgnode.api.service.maintenance import MaintenanceService
from pgnode.api.service.maintenance_calls import CALLS
from pgnode.metrics.meter import FaceMeter

#: Larger than any request that makes sense.
MAX_BODY_BYTES = 16 * 1024


def build(
    service: MaintenanceService,
    *,
    api_key: str | ApiKeys,
    body_timeout_seconds: float,
    called: Callable[[], None],
    meter: FaceMeter | None = None,
    wrong_keys: WrongKeys | None = None,
    audit: CallAudit | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> App:
    """Return the ASGI callable of the maintenance API, for scopes of type ``http``.

    Args:
        service: Answers the calls.
        api_key: The keys that callers may send, or one, a UUID; ValueError for anything else.
        body_timeout_seconds: Time for a whole body.
        called: Called for every request that brings the key.
        meter: Counts the calls.
        wrong_keys: Counts those without a right key by address.
        audit: Takes note of those that change something.
        drain_seconds: Time for which the rest of a refused body is thrown away.

    Returns:
        The pipeline with the application behind it.
    """
    return RequestPipeline(
        MaintenanceApp(service),
        CALLS,
        AuthStep(api_key, called),
        BodyReader(max_bytes=MAX_BODY_BYTES, timeout_seconds=body_timeout_seconds, size_setting=None),
        json_only=True,
        error_form=_detail_form,
        meter=meter,
        wrong_keys=wrong_keys,
        audit=audit,
        drain_seconds=drain_seconds,
    )


def _detail_form(_headers: Mapping[bytes, bytes], _admitted: bool) -> ErrorForm:
    return DETAIL_FORM


class MaintenanceApp:
    """The application behind the pipeline.

    Args:
        service: Answers the calls.
    """

    def __init__(self, service: MaintenanceService) -> None:
        self._handlers = {}
        for call in CALLS:
            for path in {call.path, call.path.rstrip("/") + "/"}:
                self._handlers[call.http_method, path] = getattr(service, call.handler)

    def __repr__(self) -> str:
        return f"MaintenanceApp({len(self._handlers)} routes)"

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request of a route that there is."""
        handler = self._handlers[scope["method"], scope["path"]]
        try:
            body = await handler(context_of(scope).body)
        except Exception as error:
            refused = answerable(error, scope)
            context_of(scope).code = refused.code
            await send_error(send, refused, DETAIL_FORM)
            return
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
