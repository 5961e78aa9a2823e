"""The pages for monitors: nothing without a key, and METRICS_KEY opens no more than it should."""

from __future__ import annotations

import json

import pytest

from pgnode.api.rest.asgi import App, Receive, Scope, Send
from pgnode.api.rest.observation import WithObservation
from pgnode.api.service.monitor_pages import PAGES
from pgnode.api.service.observation import Observation
from pgnode.metrics.meter import FaceMeter
from tests.unit.api.fakes import KEY, Call, FakeCommands, FakeReads, part

METRICS_KEY = "0123456789abcdef"


class Otherwise:
    """Everything else."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def commands() -> FakeCommands:
    return FakeCommands(reply=b"text/plain\nup 1\n")


@pytest.fixture
def meter() -> FaceMeter:
    return FaceMeter(lambda: 0.0)


@pytest.fixture
def called() -> list[None]:
    return []


@pytest.fixture
def app(commands: FakeCommands, meter: FaceMeter, called: list[None]) -> App:
    return made(commands, meter, called, METRICS_KEY)


def made(commands: FakeCommands, meter: FaceMeter, called: list[None], metrics_key: str | None) -> WithObservation:
    return WithObservation(
        Observation(FakeReads(), commands, lambda _accept: ("own", b"")),
        Otherwise(),
        api_key=KEY,
        metrics_key=metrics_key,
        body_timeout_seconds=1,
        meter=meter,
        called=lambda: called.append(None),
        drain_seconds=0.01,
    )


async def status(app: App, path: str, **headers: str) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await Call("GET", path, sent, []).run(app)).status


async def test_metrics(app: App, commands: FakeCommands) -> None:
    answer = await Call("GET", "/metrics", {"x-api-key": KEY, "accept": "text/x"}, []).run(app)
    assert (answer.status, answer.body) == (200, b"up 1\n")
    assert answer.headers[b"content-type"] == b"text/plain"
    assert answer.headers[b"cache-control"] == b"no-store"
    assert commands.calls[0][1] == b"text/x"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
async def test_who_may_see_a_page(app: App, commands: FakeCommands, page: object) -> None:
    path, with_metrics_key = getattr(page, "path", ""), getattr(page, "with_metrics_key", None)
    commands.reply = b"text/plain\n" if path == "/metrics" else b'{"ready": true}'
    for sent in (path, f"{path}/"):
        assert await status(app, sent) == 401
        assert await status(app, sent, x_api_key="wrong") == 401
        assert await status(app, sent, x_api_key=KEY) == 200
        assert await status(app, sent, authorization=f"Bearer {KEY}") == 200
        expected = 200 if with_metrics_key else 401
        assert await status(app, sent, authorization=f"Bearer {METRICS_KEY}") == expected
        assert await status(app, sent, x_api_key=METRICS_KEY) == expected


async def test_without_a_metrics_key_the_api_key_alone_opens_them(
    commands: FakeCommands, meter: FaceMeter, called: list[None]
) -> None:
    app = made(commands, meter, called, None)
    assert await status(app, "/livez", x_api_key="None") == 401
    assert await status(app, "/livez", x_api_key=KEY) == 200


async def test_everything_else_is_the_maintenance_apis(app: App) -> None:
    assert await status(app, "/") == 299
    assert await status(app, "/metrics/x", x_api_key=METRICS_KEY) == 299


async def test_calls_are_counted_and_only_the_api_key_is_a_panels(
    app: App, meter: FaceMeter, called: list[None]
) -> None:
    await status(app, "/livez", x_api_key=KEY)
    await status(app, "/livez", x_api_key=METRICS_KEY)
    await status(app, "/livez")
    answer = await Call("POST", "/livez", {"x-api-key": KEY, "content-length": "1"}, [part(b"x")]).run(app)
    assert (answer.status, answer.headers[b"allow"]) == (405, b"GET")
    assert meter.calls == {"live": {"OK": 2}, "other": {"METHOD_NOT_ALLOWED": 1}}
    assert meter.unauthenticated == 1
    assert dict(meter.key_uses) == {"current": 2, "metrics": 1}
    assert len(called) == 2
    assert repr(app).startswith("WithObservation(/metrics")


async def test_an_error_is_told_as_all_are(app: App, commands: FakeCommands, meter: FaceMeter) -> None:
    commands.error = RuntimeError("odd")
    answer = await Call("GET", "/readyz", {"x-api-key": KEY}, []).run(app)
    assert answer.status == 500
    assert json.loads(answer.body)["code"] == "INTERNAL"
    assert meter.calls == {"ready": {"INTERNAL": 1}}
