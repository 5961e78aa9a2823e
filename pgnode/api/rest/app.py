"""The REST face of the node: a Falcon application whose routes come from the method table, behind the gate."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Awaitable, MutableMapping
from typing import Any, cast

import falcon
import falcon.asgi
import structlog

from pgnode.api.methods import METHODS, Method
from pgnode.api.rest.delivery import SETTLE, settle_after
from pgnode.api.rest.gate import (
    BODY,
    CONTENT_TYPE,
    FAILURE,
    JSON_FORM,
    RECEIVE,
    App,
    Booking,
    CachedAnswer,
    Gate,
    error_body,
)
from pgnode.api.rest.json_codec import JSON, JsonCodec
from pgnode.api.rest.log_stream import (
    EVENT_STREAM,
    JSON_LINES,
    UNHURRIED,
    LogStream,
    event,
    json_line,
    plain,
    wants_events,
)
from pgnode.api.rest.response_chunks import put
from pgnode.api.service.node_service import Answer, BookedHandler, Handler, NodeService
from pgnode.api.service.tracked import TrackedResponse
from pgnode.errors import InternalError, InvalidRequestError, MethodNotAllowedError, NodeError, NotFoundError

log = structlog.get_logger(__name__)

Request = falcon.asgi.Request
Response = falcon.asgi.Response


def build(service: NodeService, *, api_key: str, max_body_bytes: int, body_timeout_seconds: float) -> App:
    """The ASGI callable for scopes of type ``http``. Raises ValueError for an ``api_key`` that is no UUID."""
    app = falcon_app(service)
    booking = Booking(service.books, functools.partial(settle_after, app))
    return Gate(
        app,
        METHODS,
        booking={row.path: booking for row in METHODS if row.booked},
        at_once={
            (row.http_method, row.path): CachedAnswer(
                getattr(service, row.at_once_handler), service.stats_age if row.aged else None
            )
            for row in METHODS
            if row.at_once
        },
        direct={(row.http_method, row.path): getattr(service, row.handler) for row in METHODS if row.direct},
        api_key=api_key,
        max_body_bytes=max_body_bytes,
        body_timeout_seconds=body_timeout_seconds,
        called=service.called,
    )


def falcon_app(service: NodeService) -> App:
    """The application without the gate; it expects the gate's additions to the scope."""
    app = falcon.asgi.App()
    app.resp_options.default_media_type = CONTENT_TYPE
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, _on_exception)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(NodeError, _on_node_error)
    json_face = JsonCodec()
    by_path: dict[str, list[Method]] = defaultdict(list)
    for row in METHODS:
        by_path[row.path].append(row)
    for path, rows in by_path.items():
        app.add_route(path, _resource(service, json_face, rows))
    return cast(App, app)


def _resource(service: NodeService, json_face: JsonCodec, rows: list[Method]) -> object:
    """One path's resource, with a responder for each of its methods and 405 for OPTIONS, which Falcon would answer."""
    responders: dict[str, Any] = {"on_options": staticmethod(_not_allowed([row.http_method for row in rows]))}
    for row in rows:
        handler = getattr(service, row.handler)
        if row.streaming:
            responder = _log_responder(service)
        elif row.aged:
            responder = _stats_responder(service, row, handler, json_face)
        else:
            responder = _responder(row, handler, json_face)
        responders[f"on_{row.http_method.lower()}"] = staticmethod(responder)
    return type("Resource" + re.sub(r"\W", "_", rows[0].path), (), responders)()


def _responder(row: Method, handler: Handler, json_face: JsonCodec) -> Any:
    async def respond(req: Request, resp: Response) -> None:
        scope = req.scope
        if JSON_FORM in scope:
            await _answer_json(json_face, row, handler, scope, resp)
            return
        if FAILURE in scope:
            raise scope.pop(FAILURE)
        answer = handler(scope[BODY])
        resp.data = answer if isinstance(answer, bytes) else await answer

    return respond


def _stats_responder(service: NodeService, row: Method, handler: BookedHandler, json_face: JsonCodec) -> Any:
    async def respond(req: Request, resp: Response) -> None:
        scope = req.scope
        if JSON_FORM in scope:
            await _answer_json(json_face, row, _unbooked(handler, scope), scope, resp)
        else:
            answer = handler(scope[BODY])
            put(resp, answer if isinstance(answer, bytes) else await _unbook(answer, scope))
        # Of what was read before the question; what is handed out with ``reset`` was read for it.
        if SETTLE not in scope and (age := service.stats_age()) is not None:
            resp.set_header("age", str(int(age)))

    return respond


async def _answer_json(
    json_face: JsonCodec, row: Method, handler: Handler, scope: MutableMapping[str, Any], resp: Response
) -> None:
    form = scope[JSON_FORM]
    put(resp, await json_face.answer(row, handler, scope[BODY], form))
    if form.answer:
        resp.content_type = JSON


def _unbooked(handler: BookedHandler, scope: MutableMapping[str, Any]) -> Handler:
    """The handler with bytes for its answer; whom to tell of its delivery is left in the scope, for the gate."""

    def call(body: bytes) -> Answer:
        answer = handler(body)
        return answer if isinstance(answer, bytes) else _unbook(answer, scope)

    return call


async def _unbook(answer: Awaitable[bytes | TrackedResponse], scope: MutableMapping[str, Any]) -> bytes:
    found = await answer
    if isinstance(found, TrackedResponse):
        found, scope[SETTLE] = found
    return found


def _log_responder(service: NodeService) -> Any:
    async def respond(req: Request, resp: Response) -> None:
        encode, resp.content_type = plain, EVENT_STREAM
        if wants_events(req.get_header("accept", default="")):
            encode = event
        elif JSON_FORM in req.scope:
            encode, resp.content_type = json_line, JSON_LINES
        resp.set_header("cache-control", "no-store")
        req.scope[UNHURRIED] = True
        resp.stream = LogStream(service.logs(), req.scope[RECEIVE], encode)  # type: ignore[assignment]

    return respond


def _not_allowed(allowed: list[str]) -> Any:
    async def respond(_req: Request, _resp: Response) -> None:
        raise falcon.HTTPMethodNotAllowed(allowed)

    return respond


def _answer(resp: Response, error: NodeError) -> None:
    resp.status = error.status
    resp.content_type = "application/json"
    resp.data = error_body(error)
    if error.retry_after_seconds is not None:
        resp.set_header("retry-after", str(error.retry_after_seconds))


async def _on_node_error(_req: Request, resp: Response, error: NodeError, _params: dict[str, Any]) -> None:
    _answer(resp, error)


async def _on_exception(req: Request, resp: Response, error: Exception, _params: dict[str, Any]) -> None:
    log.error("request failed", method=req.method, path=req.path, exc_info=error)
    _answer(resp, InternalError.of(error))


async def _on_http_error(req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
    """What Falcon itself refuses: unknown paths and methods above all."""
    resp.set_headers(error.headers or {})
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        # Falcon counts its own answer to OPTIONS, which the node refuses.
        allowed = ", ".join(name for name in (resp.get_header("allow") or "").split(", ") if name != "OPTIONS")
        resp.set_header("allow", allowed)
        _answer(resp, MethodNotAllowedError(f"{req.method} is not allowed here, {allowed} is"))
    elif isinstance(error, falcon.HTTPNotFound):
        _answer(resp, NotFoundError(f"no such endpoint: {req.path}"))
    else:
        refused = InvalidRequestError(error.description or error.title or str(error))
        _answer(resp, refused)
