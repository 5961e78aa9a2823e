"""Errors over REST: status, code, text, the form that the caller reads, and the headers that belong to them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from pgnode.api.rest.asgi import App
from pgnode.api.rest.errors import (
    DETAIL_FORM,
    JSON_FORM,
    TEXT_FORM,
    ErrorForm,
    answerable,
    error_form,
    error_headers,
    send_error,
)
from pgnode.errors import (
    BusUnavailableError,
    CoreUnavailableError,
    DownloadFailedError,
    InternalError,
    NodeError,
    UnauthenticatedError,
)
from tests.unit.api.fakes import KEY, Call, Node, part
from tests.unit.api.rest.requests import USER, error_of

SCOPE = {"method": "PUT", "path": "/user/sync"}
PANEL = {b"x-api-key": b"key"}


def test_the_body_has_the_text_and_the_code() -> None:
    error = CoreUnavailableError("no “answer” \ud800")
    assert json.loads(JSON_FORM.encode(error)) == {"error": "no “answer” ?", "code": "CORE_UNAVAILABLE"}
    body = json.loads(DETAIL_FORM.encode(error))
    assert body["detail"] == body["error"] == "no “answer” ?"
    assert TEXT_FORM.encode(error).decode() == "no “answer” ?"


@pytest.mark.parametrize(
    ("headers", "admitted", "form"),
    [
        (PANEL, True, TEXT_FORM),
        (PANEL, False, JSON_FORM),
        ({b"authorization": b"Bearer key"}, True, JSON_FORM),
        (PANEL | {b"authorization": b"Bearer key"}, True, JSON_FORM),
        (PANEL | {b"content-type": b"application/x-protobuf", b"accept": b"*/*"}, True, TEXT_FORM),
        (PANEL | {b"content-type": b"text/xml", b"accept": b"text/event-stream"}, True, TEXT_FORM),
        (PANEL | {b"content-type": b"Application/JSON; charset=utf-8"}, True, JSON_FORM),
        (PANEL | {b"accept": b"application/json"}, True, JSON_FORM),
        (PANEL | {b"accept": b"application/x-protobuf, application/json;q=0.1"}, True, JSON_FORM),
        (PANEL | {b"accept": b"application/json;q=0"}, True, TEXT_FORM),
    ],
)
def test_panels_get_the_text_alone_and_all_others_an_object(
    headers: dict[bytes, bytes], admitted: bool, form: ErrorForm
) -> None:
    assert error_form(headers, admitted) is form


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/nowhere", {}, b"", 404),
        ("DELETE", "/info", {}, b"", 405),
        ("GET", "/stats/backend", {}, b"", 503),
        ("PUT", "/user/sync", {"content-length": str(len(USER))}, USER, 503),
        ("PUT", "/users/sync", {}, b"", 411),
        ("PUT", "/users/sync", {"content-length": "1000"}, b"", 413),
        ("PUT", "/users/sync", {"content-length": "one"}, b"", 400),
        ("GET", "/stats", {"content-length": "2"}, b"\xff\xff", 400),
    ],
    ids=["unknown path", "method", "cached", "direct", "no length", "too large", "no number", "Falcon's"],
)
async def test_whoever_answers_one_place_decides(
    app: App, node: Node, *, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    """The pipeline, the fast path and the application behind them agree."""
    node.commands.error = BusUnavailableError("away")
    node.reads.bodies = {}
    answers = {}
    for name, value in {"x-api-key": KEY, "authorization": f"Bearer {KEY}"}.items():
        answers[name] = await Call(method, path, {name: value, **headers}, [part(body)]).run(app)
        assert answers[name].status == status
    plain, other = answers.values()
    assert plain.headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert other.headers[b"content-type"] == b"application/json"
    assert error_of(plain) == error_of(other)


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
    assert dict(error_headers(error, JSON_FORM)) == {b"content-type": b"application/json", **more}
    code = {b"x-error-code": error.code.encode()}
    assert dict(error_headers(error, TEXT_FORM)) == {b"content-type": b"text/plain; charset=utf-8", **code, **more}


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

    await send_error(send, UnauthenticatedError("no"), JSON_FORM, [(b"connection", b"close")])
    start, body = sent
    assert (start["status"], body["more_body"]) == (401, False)
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"connection"] == b"close"
