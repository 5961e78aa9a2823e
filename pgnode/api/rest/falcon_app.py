"""The Falcon application of the node's API: its routes come from the table of methods.

It runs behind the pipeline and expects a request's context (:mod:`pgnode.api.rest.context`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, cast

import falcon
import falcon.asgi

from pgnode.api.methods import METHODS, Method
from pgnode.api.rest.asgi import App
from pgnode.api.rest.context import RequestContext, connection_of, context_of
from pgnode.api.rest.errors import answerable, error_form, error_headers
from pgnode.api.rest.json_codec import JsonCodec
from pgnode.api.rest.log_stream import LogStream, log_format
from pgnode.api.rest.negotiation import JSON, PROTOBUF, JsonForm
from pgnode.api.rest.response_chunks import set_body
from pgnode.api.service.node_service import NodeService
from pgnode.api.service.tracked import Answer, Handler, TrackedHandler, TrackedResponse
from pgnode.bus.indexed import Body
from pgnode.errors import InvalidRequestError, NodeError

Request = falcon.asgi.Request
Response = falcon.asgi.Response
Responder = Callable[[Request, Response], Awaitable[None]]


def falcon_app(service: NodeService, json_codec: JsonCodec | None = None) -> App:
    """Return the application.

    Args:
        service: Answers the methods.
        json_codec: Serves callers who speak JSON; one of its own where none is given.

    Returns:
        An ASGI callable for requests with a context.
    """
    app = falcon.asgi.App()
    app.resp_options.default_media_type = PROTOBUF
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, _on_exception)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    codec = json_codec if json_codec is not None else JsonCodec()
    rows_by_path: dict[str, list[Method]] = defaultdict(list)
    for row in METHODS:
        rows_by_path[row.path].append(row)
    for path, rows in rows_by_path.items():
        app.add_route(path, _resource(service, codec, rows))
    return cast(App, app)


def _resource(service: NodeService, codec: JsonCodec, rows: list[Method]) -> object:
    """Make one path's resource, with a responder for each of its methods."""
    responders: dict[str, Any] = {}
    for row in rows:
        handler = getattr(service, row.handler)
        if row.streaming:
            responder = _log_responder(service)
        elif row.aged:
            responder = _stats_responder(service, row, handler, codec)
        else:
            responder = _responder(row, handler, codec)
        responders[f"on_{row.http_method.lower()}"] = staticmethod(responder)
    return type("Resource" + re.sub(r"\W", "_", rows[0].path), (), responders)()


def _responder(row: Method, handler: Handler, codec: JsonCodec) -> Responder:
    async def respond(req: Request, resp: Response) -> None:
        context = context_of(req.scope)
        if context.json_form is not None:
            set_body(resp, await codec.answer(row, handler, context.body, context.json_form))
            _set_type(resp, context.json_form)
            return
        answer = handler(context.body)
        resp.data = answer if isinstance(answer, bytes) else await answer

    return respond


def _stats_responder(service: NodeService, row: Method, handler: TrackedHandler, codec: JsonCodec) -> Responder:
    async def respond(req: Request, resp: Response) -> None:
        context = context_of(req.scope)
        if context.json_form is not None:
            call = _untracked(handler, context)
            set_body(resp, await codec.answer(row, call, context.body, context.json_form))
            _set_type(resp, context.json_form)
        else:
            answer = handler(context.body)
            set_body(resp, answer if isinstance(answer, bytes | memoryview) else await _untrack(answer, context))
        # What is handed out with ``reset`` was read for this very call and has no age.
        if context.settle is None and (age := service.stats_age()) is not None:
            resp.set_header("age", str(int(age)))

    return respond


def _set_type(resp: Response, form: JsonForm) -> None:
    if form.answer:
        resp.content_type = JSON


def _untracked(handler: TrackedHandler, context: RequestContext) -> Handler:
    """Return ``handler`` with bytes for its answer; whom to tell of its delivery is left in ``context``."""

    def call(body: bytes) -> Answer:
        answer = handler(body)
        return bytes(answer) if isinstance(answer, bytes | memoryview) else _as_bytes(answer, context)

    return call


async def _as_bytes(answer: Awaitable[Body | TrackedResponse], context: RequestContext) -> bytes:
    return bytes(await _untrack(answer, context))


async def _untrack(answer: Awaitable[Body | TrackedResponse], context: RequestContext) -> Body:
    found = await answer
    if isinstance(found, TrackedResponse):
        found, context.settle = found
        context.taken = True
    return found


def _log_responder(service: NodeService) -> Responder:
    async def respond(req: Request, resp: Response) -> None:
        context = context_of(req.scope)
        encode, resp.content_type = log_format(
            req.get_header("accept", default=""), as_json=context.json_form is not None
        )
        resp.set_header("cache-control", "no-store")
        connection = connection_of(req.scope)
        if connection is not None:
            # Lines that find no room are dropped, and the viewer is told how many.
            connection.answer_is_endless()
        resp.stream = await LogStream.open(service.logs(), context.receive, encode)

    return respond


def _set_error(req: Request, resp: Response, error: NodeError) -> None:
    context_of(req.scope).code = error.code
    form = error_form(dict(req.scope["headers"]), True)
    resp.status = error.status
    resp.data = form.encode(error)
    for name, value in error_headers(error, form):
        resp.set_header(name.decode(), value.decode())


async def _on_exception(req: Request, resp: Response, error: Exception, _params: dict[str, Any]) -> None:
    _set_error(req, resp, answerable(error, req.scope))


async def _on_http_error(req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
    """Answer what Falcon itself refuses; unknown paths and methods do not come here."""
    _set_error(req, resp, InvalidRequestError(error.description or error.title or str(error)))
