"""The maintenance API over HTTP, called without a server."""

from __future__ import annotations

import json

import pytest

from pgnode.api.rest.asgi import App
from pgnode.api.rest.maintenance import MAX_BODY_BYTES, build
from pgnode.api.service.maintenance import MaintenanceService
from pgnode.bus.commands import Kind
from pgnode.errors import ConflictError, DownloadFailedError
from tests.unit.api.fakes import KEY, Answer, Call, Node, part
from tests.unit.api.rest.requests import keyed


@pytest.fixture
def called() -> list[None]:
    return []


@pytest.fixture
def app(node: Node, called: list[None]) -> App:
    node.commands.reply = b'{"detail": "done"}'
    service = MaintenanceService(
        node.reads,
        node.commands,
        node.refresh,
        job_timeout_seconds=290.0,
        write_timeout_seconds=30.0,
        node_version="1.2.3",
    )
    return build(
        service, api_key=KEY, body_timeout_seconds=0.05, called=lambda: called.append(None), drain_seconds=0.01
    )


async def ask(app: App, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    if body is None:
        return await Call(method, path, keyed(**headers), []).run(app)
    sent = keyed(content_length=str(len(body)), content_type="application/json", **headers)
    return await Call(method, path, sent, [part(body)]).run(app)


def error_of(answer: Answer) -> dict[str, str]:
    body: dict[str, str] = json.loads(answer.body)
    assert body["detail"] == body["error"]
    assert answer.headers[b"content-type"] == b"application/json"
    return body


async def test_the_first_call_answers_and_counts(app: App, called: list[None]) -> None:
    answer = await ask(app, "GET", "/")
    assert (answer.status, answer.headers[b"content-type"]) == (200, b"application/json")
    assert json.loads(answer.body)["node_version"].endswith("+pgnode.1.2.3")
    assert len(called) == 1


@pytest.mark.parametrize("path", ["/node/geofiles", "/node/geofiles/"])
async def test_a_job_goes_to_the_supervisor(app: App, node: Node, path: str) -> None:
    answer = await ask(app, "POST", path, b'{"region": "iran"}')
    assert (answer.status, json.loads(answer.body)) == (200, {"detail": "done"})
    assert [call[:2] for call in node.commands.calls] == [(Kind.GEOFILES, b'{"region": "iran"}')]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (ConflictError("busy"), 409, None),
        (DownloadFailedError("away"), 503, b"60"),
        (RuntimeError("secret"), 500, None),
    ],
)
async def test_errors_carry_detail(app: App, node: Node, error: Exception, status: int, retry: bytes | None) -> None:
    node.commands.error = error
    answer = await ask(app, "POST", "/node/update", b"")
    assert (answer.status, answer.headers.get(b"retry-after")) == (status, retry)
    assert "secret" not in error_of(answer)["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [("GET", "/nowhere", 404, None), ("GET", "/node/update", 405, b"POST"), ("POST", "/", 405, b"GET")],
)
async def test_unknown_paths_and_methods(app: App, method: str, path: str, status: int, allow: bytes | None) -> None:
    answer = await ask(app, method, path)
    assert (answer.status, answer.headers.get(b"allow")) == (status, allow)
    error_of(answer)


async def test_what_the_pipeline_refuses_has_detail_too(app: App, called: list[None]) -> None:
    assert error_of(await Call("GET", "/", {}, []).run(app))["code"] == "UNAUTHENTICATED"
    assert not called
    assert (await ask(app, "POST", "/node/geofiles")).status == 411
    large = Call("POST", "/node/geofiles", keyed(content_length=str(MAX_BODY_BYTES + 1)), [])
    answer = await large.run(app)
    assert answer.status == 413
    assert error_of(answer)["error"] == f"the body has {MAX_BODY_BYTES + 1} bytes, at most {MAX_BODY_BYTES} are allowed"
    protobuf = keyed(content_length="2", content_type="application/x-protobuf")
    assert (await Call("POST", "/node/geofiles", protobuf, [part(b"{}")]).run(app)).status == 400
