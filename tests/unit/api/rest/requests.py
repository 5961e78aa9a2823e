"""Requests of a caller with the key, and what tests look at in an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pgnode.api.methods import METHODS
from pgnode.api.rest.asgi import App
from pgnode.api.rest.auth_step import AuthStep
from pgnode.api.rest.body import BodyReader
from pgnode.api.rest.fast_path import CachedAnswer, DirectHandler, RouteKey
from pgnode.api.rest.pipeline import RequestPipeline
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import KEY, Answer

LIMIT_BYTES = 100
USER = pb.User(email="alice").SerializeToString()


def pipeline(
    app: App,
    *,
    cached: dict[RouteKey, CachedAnswer] | None = None,
    direct: Mapping[RouteKey, DirectHandler] | None = None,
) -> RequestPipeline:
    body = BodyReader(max_bytes=99, timeout_seconds=1, size_setting=None)
    return RequestPipeline(app, METHODS, AuthStep(KEY, lambda: None), body, cached=cached, direct=direct)


def keyed(**headers: str) -> dict[str, str]:
    return {"x-api-key": KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}


def error_of(answer: Answer) -> dict[str, str]:
    assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
    if answer.headers[b"content-type"] == b"text/plain; charset=utf-8":
        return {"error": answer.body.decode(), "code": answer.headers[b"x-error-code"].decode()}
    assert answer.headers[b"content-type"] == b"application/json"
    assert b"x-error-code" not in answer.headers
    body = json.loads(answer.body)
    assert set(body) == {"error", "code"}
    return dict(body)
