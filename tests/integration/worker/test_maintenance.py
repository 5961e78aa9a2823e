"""The maintenance API through real workers: its port, its keys, its errors; the supervisor is a stub."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pgnode.bus.commands import MAINTENANCE_KINDS, Kind, Reply
from pgnode.errors import ConflictError, DownloadFailedError, UpdateFailedError
from pgnode.testing.panel import PanelClient, Response
from tests.integration.worker.stage import Stage
from tests.support.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture(loop_scope="module")
async def desk(stage: Stage) -> AsyncIterator[PanelClient]:
    """A panel at the maintenance port."""
    async with PanelClient(
        "127.0.0.1", stage.api_port, ca_file=stage.settings.cert_file, api_key=stage.api_key
    ) as client:
        yield client


async def post(desk: PanelClient, path: str, body: object | None = None) -> Response:
    if body is None:
        return await desk.request("POST", path)
    return await desk.request("POST", path, json.dumps(body).encode(), headers=JSON)


def error_of(answer: Response) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, str] = json.loads(answer.body)
    assert body["detail"] == body["error"] != ""
    assert body["code"]
    return body


async def test_the_first_call_answers_from_memory_also_when_the_supervisor_is_away(
    stage: Stage, desk: PanelClient
) -> None:
    answer = await desk.request("GET", "/")
    assert answer.status == 200
    body = json.loads(answer.body)
    assert body["detail"]
    assert (body["state"], body["core_version"]) == ("running", "26.10.10")
    assert not stage.supervisor.commands


async def test_each_port_has_its_own_api(stage: Stage, desk: PanelClient, panel: PanelClient) -> None:
    assert (await desk.request("GET", "/info")).status == 404
    assert (await desk.request("GET", "/stats/system")).status == 404
    for method, path in (("GET", "/"), ("POST", "/node/core_update")):
        answer = await panel.request(method, path, b"" if method == "POST" else None)
        assert answer.status == 404
        assert answer.headers["x-error-code"] == "NOT_FOUND"
        assert b"detail" not in answer.body
    assert not stage.supervisor.commands


@pytest.mark.parametrize(
    ("call", "kind", "sent"),
    [
        (("/node/core_update", {"core_version": "v26.10.10"}), Kind.CORE_UPDATE, {"core_version": "26.10.10"}),
        (("/node/core_update/", {"core_version": "latest"}), Kind.CORE_UPDATE, {"core_version": "latest"}),
        (("/node/geofiles", {"region": "china"}), Kind.GEOFILES, {"region": "china"}),
        (("/node/hard_reset", None), Kind.HARD_RESET, None),
        (("/node/hard_reset", {}), Kind.HARD_RESET, None),
        (("/node/update", None), Kind.UPDATE, None),
    ],
)
async def test_jobs_go_to_the_supervisor(
    stage: Stage, desk: PanelClient, call: tuple[str, object], kind: Kind, sent: Any
) -> None:
    stage.supervisor.handlers[kind] = lambda _command: Reply(body=b'{"detail": "done"}')
    answer = await post(desk, *call)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == {"detail": "done"}
    [command] = stage.supervisor.of_kind(kind)
    assert (json.loads(command.body) if command.body else None) == sent
    assert command.budget_ms > 25_000


@pytest.mark.parametrize("error", [ConflictError("busy"), DownloadFailedError("away"), UpdateFailedError("broken")])
async def test_errors_of_jobs_are_told_as_detail(stage: Stage, desk: PanelClient, error: Any) -> None:
    stage.supervisor.handlers[Kind.UPDATE] = lambda _command: Reply(error=error)
    answer = await post(desk, "/node/update")
    assert answer.status == error.status
    assert error_of(answer) == {"error": error.text, "code": error.code, "detail": error.text}


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [
        (("/node/core_update", b'{"core_version": 1}'), 400, "core_version is a number"),
        (("/node/core_update", b'{"core_version": '), 400, "malformed JSON"),
        (("/node/core_update", b""), 400, "core_version is missing"),
        (("/node/core_update", b'{"core_version": "' + b"9" * 20_000 + b'"}'), 413, "20020 bytes"),
        (("/node/geofiles", b'{"region": "mars"}'), 400, "known are iran, china, russia"),
        (("/node/geofiles", b'{"region": "iran", "where": 1}'), 400, "'where'"),
        (("/node/update", b'{"command": "reboot"}'), 400, "'command'"),
        (("/node/hard_reset", b"[]"), 400, "an object"),
        (("/nowhere", b"{}"), 404, "/nowhere"),
        (("/", b"{}"), 405, "GET"),
    ],
)
async def test_bad_requests_are_told_and_reach_nobody(
    stage: Stage, desk: PanelClient, call: tuple[str, bytes], status: int, words: str
) -> None:
    answer = await desk.request("POST", *call, headers=JSON)
    assert answer.status == status
    assert words in error_of(answer)["detail"]
    assert not [command for command in stage.supervisor.commands if command.kind in MAINTENANCE_KINDS]


async def test_methods_lengths_and_types(desk: PanelClient) -> None:
    answer = await desk.request("GET", "/node/update")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    error_of(answer)
    answer = await desk.request("POST", "/node/geofiles")
    assert answer.status == 411
    error_of(answer)
    answer = await desk.request("POST", "/node/geofiles", b"{}")  # as protobuf
    assert answer.status == 400
    assert "application/json" in error_of(answer)["detail"]


async def test_keys(stage: Stage) -> None:
    for auth, key, status in (("x-api-key", "", 401), ("bearer", stage.api_key, 200), ("x-api-key", "wrong", 401)):
        async with PanelClient(
            "127.0.0.1",
            stage.api_port,
            ca_file=stage.settings.cert_file,
            api_key=key,
            auth=auth,  # type: ignore[arg-type]
        ) as client:
            for path in ("/", "/nowhere"):
                answer = await client.request("GET", path)
                assert answer.status == (status if path == "/" or status == 401 else 404)
                if status == 401:
                    assert error_of(answer)["code"] == "UNAUTHENTICATED"


async def test_a_caller_that_goes_away_has_handed_its_job_over(stage: Stage, desk: PanelClient) -> None:
    seen: list[Kind] = []

    def slow(command: Any) -> Reply:
        seen.append(command.kind)
        return Reply(body=b"{}")

    stage.supervisor.handlers[Kind.UPDATE] = slow
    connection = await desk.connect()
    connection.send(desk.head("POST", "/node/update", {"Content-Length": "0"}))
    await connection.drain()
    await connection.close()
    await eventually(lambda: seen == [Kind.UPDATE], "the job reached the supervisor")
    assert (await desk.request("GET", "/")).status == 200
