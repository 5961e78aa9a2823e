"""Errors over REST: status, code, text and the headers that belong to them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from pgnode.api.rest.errors import answerable, encode_error, encode_error_with_detail, error_headers, send_error
from pgnode.errors import CoreUnavailableError, DownloadFailedError, InternalError, NodeError, UnauthenticatedError

SCOPE = {"method": "PUT", "path": "/user/sync"}


def test_the_body_has_the_text_and_the_code() -> None:
    error = CoreUnavailableError("no “answer” \ud800")
    assert json.loads(encode_error(error)) == {"error": "no “answer” ?", "code": "CORE_UNAVAILABLE"}
    body = json.loads(encode_error_with_detail(error))
    assert body["detail"] == body["error"] == "no “answer” ?"


@pytest.mark.parametrize(
    ("error", "more"),
    [
        (InternalError("x"), {}),
        (CoreUnavailableError("x"), {b"retry-after": b"1"}),
        (DownloadFailedError("x"), {b"retry-after": b"60"}),
        (UnauthenticatedError("x"), {b"www-authenticate": b"Bearer"}),
    ],
)
def test_the_headers_say_what_a_caller_may_do(error: NodeError, more: dict[bytes, bytes]) -> None:
    assert dict(error_headers(error)) == {b"content-type": b"application/json", **more}


def test_only_what_nobody_expected_is_logged() -> None:
    expected = CoreUnavailableError("away")
    with capture_logs() as logged:
        assert answerable(expected, SCOPE) is expected
    assert logged == []
    with capture_logs() as logged:
        told = answerable(ValueError("secret"), SCOPE)
    assert told.text == "internal error (ValueError): see the node's log"
    assert [(entry["event"], entry["path"]) for entry in logged] == [("request failed", "/user/sync")]


async def test_an_error_is_sent_whole() -> None:
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    await send_error(send, UnauthenticatedError("no"), encode_error, [(b"connection", b"close")])
    start, body = sent
    assert (start["status"], body["more_body"]) == (401, False)
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"connection"] == b"close"
