"""The maintenance API over HTTP: JSON in, JSON out, behind a gate with the node's keys and a small limit of size.

Errors have the node's form and, since the panel reads only that, the text once more as ``detail``.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import structlog

from pgnode.api.rest.gate import BODY, App, Gate, Receive, Scope, Send
from pgnode.api.rest.json_codec import JSON
from pgnode.api.service.maintenance import CALLS, MaintenanceService
from pgnode.errors import InternalError, MethodNotAllowedError, NodeError, NotFoundError

log = structlog.get_logger(__name__)

#: Larger than any request that makes sense.
MAX_BODY_BYTES = 16 * 1024


def build(service: MaintenanceService, *, api_key: str, body_timeout_seconds: float, called: Callable[[], None]) -> App:
    """The ASGI callable for scopes of type ``http``. Raises ValueError for an ``api_key`` that is no UUID."""
    return Gate(
        MaintenanceFace(service),
        CALLS,
        api_key=api_key,
        max_body_bytes=MAX_BODY_BYTES,
        body_timeout_seconds=body_timeout_seconds,
        called=called,
        json_only=True,
        size_setting=None,
        encode_error=error_body,
    )


def error_body(error: NodeError) -> bytes:
    """The JSON form of ``error``."""
    body = {"error": error.text, "code": error.code, "detail": error.text}
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")


class MaintenanceFace:
    """The application behind the gate."""

    def __init__(self, service: MaintenanceService) -> None:
        self._handlers = {}
        self._allowed: dict[str, list[str]] = {}
        for call in CALLS:
            for path in {call.path, call.path.rstrip("/") + "/"}:
                self._handlers[call.http_method, path] = getattr(service, call.handler)
                self._allowed.setdefault(path, []).append(call.http_method)

    def __repr__(self) -> str:
        return f"MaintenanceFace({len(self._handlers)} routes)"

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        headers: list[tuple[bytes, bytes]] = []
        status = 200
        try:
            handler = self._handlers.get((method, path))
            if handler is not None:
                body = await handler(scope[BODY])
            elif path in self._allowed:
                allowed = ", ".join(self._allowed[path])
                headers.append((b"allow", allowed.encode()))
                raise MethodNotAllowedError(f"{method} is not allowed here, {allowed} is")
            else:
                raise NotFoundError(f"no such endpoint: {path}")
        except NodeError as error:
            status, body = error.status, error_body(error)
            if error.retry_after_seconds is not None:
                headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
        except Exception as error:
            log.exception("request failed", method=method, path=path)
            internal = InternalError(f"internal error ({type(error).__name__}): see the node's log")
            status, body = internal.status, error_body(internal)
        headers += [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
