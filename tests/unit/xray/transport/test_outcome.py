"""How a call ended, by what its answer's headers say."""

from __future__ import annotations

import pytest

from pgnode.xray.transport import outcome
from pgnode.xray.transport.outcome import Failure


@pytest.mark.parametrize(
    ("http_status", "grpc_status", "message", "expected"),
    [
        ("200", "0", b"", None),
        ("200", "0", b"and a text", None),
        ("200", "2", b"User%20a@x%C3%A4 not found", Failure(outcome.GRPC_UNKNOWN, "User a@x\u00e4 not found")),
        ("200", "14", b"%FF", Failure(outcome.GRPC_UNAVAILABLE, "\ufffd")),
        ("502", "0", b"", Failure(outcome.GRPC_UNKNOWN, "")),
        ("200", "", b"", Failure(outcome.GRPC_UNAVAILABLE, "an answer with HTTP status 200 and without a gRPC status")),
        ("", "-1", b"", Failure(outcome.GRPC_UNAVAILABLE, "an answer with HTTP status ? and without a gRPC status")),
    ],
)
def test_an_outcome(http_status: str, grpc_status: str, message: bytes, expected: Failure | None) -> None:
    assert outcome.outcome(http_status, grpc_status, message) == expected
