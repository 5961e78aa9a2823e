"""The ASGI application: its life connects the worker, and the port of a connection decides who answers."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pgnode.api.rest.fast_path import WholeAnswer
from pgnode.wire import service_pb2 as pb
from pgnode.worker.app import GC_THRESHOLD, Application, _too_many_wrong_keys
from tests.support.stub_supervisor import StubSupervisor
from tests.support.valkey import TestValkey

KEY = "123e4567-e89b-42d3-a456-426614174000"


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The collector is left as it was found."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Life:
    """The lifespan of an application."""

    def __init__(self, app: Application) -> None:
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.ensure_future(app({"type": "lifespan"}, self._told.get, self._said.put))

    async def tell(self, what: str) -> dict[str, Any]:
        self._told.put_nowait({"type": f"lifespan.{what}"})
        async with asyncio.timeout(10):
            said: dict[str, Any] = await self._said.get()
        return said

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await self._task


async def get(app: Application, port: int, path: str, key: str = KEY) -> tuple[int, bytes]:
    said: list[Any] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"x-api-key", key.encode()), (b"accept", b"application/json"), (b"host", b"n")],
        "server": ("127.0.0.1", port),
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Any) -> None:
        said.append(event)

    await app(scope, receive, send)
    return said[0]["status"], b"".join(event.get("body", b"") for event in said)


async def test_requests_go_to_the_application_of_their_port(
    valkey: TestValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"REDIS_URL": valkey.url, "STATE_DIR": tmp_path, "API_KEY": KEY}.items():
        monkeypatch.setenv(name, str(value))
    supervisor = StubSupervisor(valkey.url)
    await supervisor.publish_all()
    app = Application()
    assert repr(app) == "Application(not started)"
    assert app.whole_answers(62050) is None
    life = Life(app)
    assert await life.tell("startup") == {"type": "lifespan.startup.complete"}
    assert gc.get_threshold()[0] == GC_THRESHOLD
    assert repr(app) == "Application(alive)"
    try:
        status, body = await get(app, 62050, "/info")
        assert (status, json.loads(body)["core_version"]) == (200, "26.10.10")
        assert app.whole_answers(62051) is None
        find = app.whole_answers(62050)
        assert find is not None
        found = find("GET", "/info", [(b"x-api-key", KEY.encode())], "", b"")
        assert isinstance(found, WholeAnswer)
        assert pb.BaseInfoResponse.FromString(bytes(found.body)).core_version == "26.10.10"
        status, body = await get(app, 62051, "/")
        assert (status, json.loads(body)["core_version"]) == (200, "26.10.10")
        # The stub takes no commands: a supervisor that is silent. Both wait for it.
        (status, body), ready = await asyncio.gather(get(app, 62051, "/metrics"), get(app, 62051, "/readyz"))
        assert (status, b"pgnode_supervisor_up 0.0\n" in body) == (200, True)
        assert ready[0] == 503
        assert (await get(app, 62051, "/health"))[0] == 200
        assert (await get(app, 62050, "/metrics"))[0] == 404
        assert (await get(app, 62051, "/metrics", "wrong"))[0] == 401
        assert (await get(app, 62050, "/node/geofiles"))[0] == 404
        assert (await get(app, 62051, "/info"))[0] == 404
        assert (await get(app, 62050, "/info", "wrong"))[0] == 401
        with pytest.raises(ValueError, match="no websocket connections here"):
            await app({"type": "websocket"}, None, None)  # type: ignore[arg-type]
    finally:
        assert await life.tell("shutdown") == {"type": "lifespan.shutdown.complete"}
        await life.ended()
        await supervisor.close()


async def test_a_worker_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SERVICE_PORT", "not a port")
    life = Life(Application())
    said = await life.tell("startup")
    assert said["type"] == "lifespan.startup.failed"
    assert "SERVICE_PORT" in said["message"]
    await life.ended()


def test_who_has_too_many_wrong_keys_is_named() -> None:
    with capture_logs() as logged:
        _too_many_wrong_keys("192.0.2.1", 3)
    [line] = logged
    assert (line["log_level"], line["caller"], line["more_before"]) == ("warning", "192.0.2.1", 3)
