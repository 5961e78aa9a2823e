"""Errors over gRPC: what is sent of a text, and how a call ends."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from pgnode.api.grpc.errors import CODE_KEY, DETAILS_BYTES_MAX, details, refuse, refusing_handler
from pgnode.errors import NodeError, UnauthenticatedError, UsersRefusedError


class AbortedError(Exception):
    """What a context raises when a call is aborted."""


class Context:
    """Notes how its call ends."""

    def __init__(self) -> None:
        self.ended: tuple[grpc.StatusCode, str, Any] | None = None

    async def abort(self, code: grpc.StatusCode, text: str, trailing: Any) -> None:
        self.ended = (code, text, trailing)
        raise AbortedError


@pytest.mark.parametrize("text", ["", "short", "ä" * (DETAILS_BYTES_MAX // 2)])
def test_a_text_that_fits_is_sent_whole(text: str) -> None:
    assert details(text) == text


def test_a_long_text_is_cut_between_characters() -> None:
    assert details("a" + "ä" * DETAILS_BYTES_MAX) == "a" + "ä" * (DETAILS_BYTES_MAX // 2 - 1) + "…"


@pytest.mark.parametrize("error", [UsersRefusedError("failed to update users: a: b"), UnauthenticatedError("no")])
async def test_a_call_ends_with_the_errors_status_text_and_code(error: NodeError) -> None:
    context: Any = Context()
    with pytest.raises(AbortedError):
        await refuse(context, error)
    expected = (grpc.StatusCode[error.grpc_status], error.text, ((CODE_KEY, error.code),))
    assert context.ended == expected
    context.ended = None
    handler: Any = refusing_handler(error)
    with pytest.raises(AbortedError):
        await handler.stream_stream(None, context)
    assert context.ended == expected
