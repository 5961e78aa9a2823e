"""How a gRPC call over HTTP/2 ended."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

#: gRPC status codes that come up here (https://grpc.io/docs/guides/status-codes/).
GRPC_OK: Final = 0
GRPC_CANCELLED: Final = 1
GRPC_UNKNOWN: Final = 2
GRPC_DEADLINE_EXCEEDED: Final = 4
GRPC_RESOURCE_EXHAUSTED: Final = 8
GRPC_INTERNAL: Final = 13
GRPC_UNAVAILABLE: Final = 14

#: What each code is called, by its number.
NAMES: Final = (
    "ok",
    "cancelled",
    "unknown",
    "invalid argument",
    "deadline exceeded",
    "not found",
    "already exists",
    "permission denied",
    "resource exhausted",
    "failed precondition",
    "aborted",
    "out of range",
    "unimplemented",
    "internal",
    "unavailable",
    "data loss",
    "unauthenticated",
)


class Failure(NamedTuple):
    """How a call ended that did not succeed: gRPC status code and text."""

    code: int
    text: str


def outcome(http_status: str, grpc_status: str, grpc_message: bytes) -> Failure | None:
    """Say how a call ended, by the headers of its answer.

    Args:
        http_status: The HTTP status, "" where there was none.
        grpc_status: The gRPC status, "" where there was none.
        grpc_message: The text beside it, as it was sent (with ``%`` escapes).

    Returns:
        What went wrong; None for a call that succeeded.
    """
    if grpc_status == "0" and http_status == "200":
        return None
    if grpc_status.isdigit():
        text = unquote_to_bytes(grpc_message).decode(errors="replace")
        return Failure(int(grpc_status) or GRPC_UNKNOWN, text)
    return Failure(GRPC_UNAVAILABLE, f"an answer with HTTP status {http_status or '?'} and without a gRPC status")
