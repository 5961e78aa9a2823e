"""Errors over REST: the status of the error's class, and its text and code in the form that the caller reads.

A panel shows the body of an error as it is, so it gets the text alone and the code in a header. Everybody else gets a JSON
object. Who gets what is decided here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import structlog

from pgnode.api.rest.asgi import Headers, Send
from pgnode.api.rest.negotiation import JSON, PLAIN_TEXT, accepts_json, is_json
from pgnode.errors import InternalError, NodeError, UnauthenticatedError

log = structlog.get_logger(__name__)

#: Names the code of an error whose body has the text alone.
CODE_HEADER = b"x-error-code"


class ErrorForm(NamedTuple):
    """The form of an error's body."""

    content_type: bytes
    encode: Callable[[NodeError], bytes]
    #: Whether the code goes into a header, since the body does not have it.
    code_in_header: bool = False


#: Chooses the form of an error by the request's headers, and by whether they hold the key.
FormChoice = Callable[[Mapping[bytes, bytes], bool], ErrorForm]


def _text(error: NodeError) -> bytes:
    return error.text.encode(errors="replace")


def _object(error: NodeError) -> bytes:
    return _json({"error": error.text, "code": error.code})


def _object_with_detail(error: NodeError) -> bytes:
    return _json({"error": error.text, "code": error.code, "detail": error.text})


def _json(body: dict[str, str]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")


#: ``{"error": …, "code": …}``.
JSON_FORM = ErrorForm(JSON.encode(), _object)

#: The text once more as ``detail``, which is all that panels read of the maintenance API.
DETAIL_FORM = ErrorForm(JSON.encode(), _object_with_detail)

#: The text alone.
TEXT_FORM = ErrorForm(PLAIN_TEXT.encode(), _text, code_in_header=True)


def error_form(headers: Mapping[bytes, bytes], admitted: bool) -> ErrorForm:
    """Return the form of errors for a caller of the node's API.

    Args:
        headers: The request's headers, names in lower case.
        admitted: Whether they hold the key.

    Returns:
        The text alone for one that sends the key as panels do and neither sends nor accepts JSON, else the JSON object.
    """
    if not admitted or b"x-api-key" not in headers or b"authorization" in headers:
        return JSON_FORM
    if is_json(headers.get(b"content-type")) or accepts_json(headers.get(b"accept")):
        return JSON_FORM
    return TEXT_FORM


def error_headers(error: NodeError, form: ErrorForm) -> Headers:
    """Return the headers of an error but for the length of its body."""
    headers = [(b"content-type", form.content_type)]
    if form.code_in_header:
        headers.append((CODE_HEADER, error.code.encode()))
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
    if isinstance(error, UnauthenticatedError):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def answerable(error: Exception, scope: Mapping[str, Any]) -> NodeError:
    """Return the error to answer for ``error``; one that nobody expected is logged with the request of ``scope``."""
    if isinstance(error, NodeError):
        return error
    log.error("request failed", method=scope["method"], path=scope["path"], exc_info=error)
    return InternalError.of(error)


def whole_error(error: NodeError, form: ErrorForm) -> tuple[Headers, bytes]:
    """Return the headers and the body of the answer that is ``error``."""
    body = form.encode(error)
    return [*error_headers(error, form), (b"content-length", b"%d" % len(body))], body


async def send_error(
    send: Send, error: NodeError, form: ErrorForm, more_headers: Headers | None = None, *, head_only: bool = False
) -> None:
    """Answer a request with ``error``.

    Args:
        send: The server's ``send``.
        error: What went wrong.
        form: The form of the body.
        more_headers: Sent beside those of every error.
        head_only: The body is left out, as HEAD asks for.
    """
    headers, body = whole_error(error, form)
    headers += more_headers or ()
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else body, "more_body": False})
