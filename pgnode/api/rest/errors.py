"""Errors over REST: the status and the code of the error's class, its text in a JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable

import structlog

from pgnode.api.rest.asgi import Headers, Scope, Send
from pgnode.api.rest.negotiation import JSON
from pgnode.errors import InternalError, NodeError, UnauthenticatedError

log = structlog.get_logger(__name__)

#: Makes the body of an error.
ErrorEncoder = Callable[[NodeError], bytes]


def encode_error(error: NodeError) -> bytes:
    """Return ``{"error": …, "code": …}``."""
    return _json({"error": error.text, "code": error.code})


def encode_error_with_detail(error: NodeError) -> bytes:
    """Return :func:`encode_error` with the text once more as ``detail``, which is all that panels read of maintenance."""
    return _json({"error": error.text, "code": error.code, "detail": error.text})


def _json(body: dict[str, str]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")


def error_headers(error: NodeError) -> Headers:
    """Return the headers of an error but for the length of its body."""
    headers = [(b"content-type", JSON.encode())]
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
    if isinstance(error, UnauthenticatedError):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def answerable(error: Exception, scope: Scope) -> NodeError:
    """Return the error to answer for ``error``; one that nobody expected is logged with the request of ``scope``."""
    if isinstance(error, NodeError):
        return error
    log.error("request failed", method=scope["method"], path=scope["path"], exc_info=error)
    return InternalError.of(error)


async def send_error(send: Send, error: NodeError, encode: ErrorEncoder, more_headers: Headers | None = None) -> None:
    """Answer a request with ``error``.

    Args:
        send: The server's ``send``.
        error: What went wrong.
        encode: Makes the body.
        more_headers: Sent beside those of every error.
    """
    body = encode(error)
    headers = [*error_headers(error), (b"content-length", b"%d" % len(body)), *(more_headers or ())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
