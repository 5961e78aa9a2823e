"""Which form the two sides of a call have: protobuf, JSON, or a stream of events. Pure.

Nearly all callers speak protobuf and send the usual headers; that costs the comparison of two headers.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

from pgnode.errors import InvalidRequestError
from pgnode.wire.texts import shown

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
PLAIN_TEXT: Final = "text/plain; charset=utf-8"
JSON_LINES: Final = "application/x-ndjson"

_PROTOBUF = PROTOBUF.encode()
_JSON = JSON.encode()


class JsonForm(NamedTuple):
    """Which sides of a call are JSON."""

    body: bool
    answer: bool


def is_json_body(content_type: bytes | None, *, json_only: bool) -> bool:
    """Tell whether a body is JSON; without a type it is protobuf, and parameters of the type do not matter.

    Args:
        content_type: The header Content-Type.
        json_only: No body may be protobuf; one without a type is JSON.

    Returns:
        Whether it is JSON.

    Raises:
        InvalidRequestError: The type is neither, or protobuf where that is not allowed.
    """
    if content_type is None:
        return json_only
    kind = _media_type(content_type)
    if kind not in ((_JSON, b"") if json_only else (_PROTOBUF, _JSON, b"")):
        allowed = JSON if json_only else f"{PROTOBUF} or {JSON}"
        raise InvalidRequestError(f"wrong Content-Type {shown(content_type.decode('latin-1'))}: send {allowed}")
    return json_only or kind == _JSON


def is_json(content_type: bytes | None) -> bool:
    """Tell whether a Content-Type header names JSON."""
    return content_type is not None and _media_type(content_type) == _JSON


def _media_type(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


@functools.lru_cache(maxsize=256)
def prefers_json(accept: bytes) -> bool:
    """Tell whether an Accept header asks for JSON: it names JSON, and does not prefer protobuf or rank both the same.

    Wildcards ask for nothing, since the node's own form is protobuf.
    """
    qualities = _qualities(accept)
    return qualities[JSON] > qualities[PROTOBUF]


def accepts_json(accept: bytes | None) -> bool:
    """Tell whether an Accept header names JSON, in whatever rank but 0."""
    return accept is not None and _qualities(accept)[JSON] > 0


def _qualities(accept: bytes) -> dict[str, float]:
    """Return the ranks of the two forms; 0 for one that is not named."""
    qualities = {JSON: 0.0, PROTOBUF: 0.0}
    for part in accept.decode("latin-1").lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name in qualities:
            qualities[name] = _quality(parameters)
    return qualities


def _quality(parameters: list[str]) -> float:
    """Return the ``q`` of a media type (RFC 9110, section 12.4.2); 1 where it is missing or no number."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                break
    return 1.0


def prefers_events(accept: str) -> bool:
    """Tell whether an Accept header asks for Server-Sent Events by name; ``*/*`` does not."""
    return any(part.partition(";")[0].strip().lower() == EVENT_STREAM for part in accept.split(","))
