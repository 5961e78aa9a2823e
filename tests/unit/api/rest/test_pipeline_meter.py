"""Every request is counted once, with what it was answered, whichever way it takes through the pipeline."""

from __future__ import annotations

import asyncio
import json

import pytest

from pgnode.api.callers import WrongKeys
from pgnode.api.rest.app import build
from pgnode.api.rest.asgi import App
from pgnode.bus.commands import Kind
from pgnode.errors import BusUnavailableError
from pgnode.metrics.meter import FaceMeter
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.unit.api.fakes import KEY, Call, Node, part, status
from tests.unit.api.rest.requests import LIMIT_BYTES, USER, keyed


@pytest.fixture
def meter() -> FaceMeter:
    return FaceMeter(lambda: 0.0)


@pytest.fixture
def app(node: Node, meter: FaceMeter) -> App:
    return build(
        node.service(),
        api_key=KEY,
        max_body_bytes=LIMIT_BYTES,
        body_timeout_seconds=0.05,
        meter=meter,
        drain_seconds=0.01,
    )


async def send(app: App, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
    events = [] if body is None else [part(body)]
    length = {} if body is None else {"content_length": str(len(body))}
    kind = {} if body is None or "content_type" in headers else {"content_type": "application/x-protobuf"}
    return (await Call(method, path, keyed(**length, **kind, **headers), events).run(app)).status


def timed(meter: FaceMeter) -> dict[str, float]:
    return {group: sum(buckets[:-1]) for group, buckets in meter.times.items()}


async def test_an_answer_at_hand_one_of_falcons_and_one_of_the_pipelines(
    app: App, meter: FaceMeter, node: Node
) -> None:
    node.reads.bodies["system"] = b""
    await send(app, "GET", "/info")
    await send(app, "GET", "/stats/system", accept="application/json")
    await send(app, "PUT", "/user/sync", USER)
    assert meter.calls == {"GetBaseInfo": {"OK": 1}, "GetSystemStats": {"OK": 1}, "SyncUser": {"OK": 1}}
    assert timed(meter) == {"read": 2, "change": 1}
    assert meter.in_flight == 0
    assert dict(meter.key_uses) == {"current": 3}


async def test_refusals(app: App, meter: FaceMeter) -> None:
    await send(app, "GET", "/nowhere")
    await send(app, "POST", "/info", b"")
    await send(app, "PUT", "/user/sync", bytes(LIMIT_BYTES + 1))
    await send(app, "PUT", "/user/sync", b"{", content_type="application/json")
    assert meter.calls == {
        "other": {"NOT_FOUND": 1, "METHOD_NOT_ALLOWED": 1},
        "SyncUser": {"PAYLOAD_TOO_LARGE": 1, "INVALID_ARGUMENT": 1},
    }
    assert timed(meter) == {"change": 2}, "what names no method is not timed"


async def test_errors_of_handlers(app: App, meter: FaceMeter, node: Node) -> None:
    node.commands.error = BusUnavailableError("away")
    await send(app, "PUT", "/user/sync", USER)
    node.commands.error = RuntimeError("odd")
    await send(app, "PUT", "/user/sync", USER)
    node.reads.status = status("idle")
    await send(app, "GET", "/stats/backend")
    assert meter.calls == {
        "SyncUser": {"BUS_UNAVAILABLE": 1, "INTERNAL": 1},
        "GetBackendStats": {"BACKEND_NOT_INITIALIZED": 1},
    }


async def test_without_the_key(app: App, meter: FaceMeter) -> None:
    await Call("GET", "/info", {"x-api-key": "wrong"}, []).run(app)
    assert (meter.unauthenticated, meter.calls, meter.in_flight) == (1, {}, 0)


@pytest.mark.parametrize("body", [None, b"x"])
async def test_over_the_limit_of_wrong_keys_an_answer_is_the_connections_last(
    node: Node, meter: FaceMeter, body: bytes | None
) -> None:
    app = build(
        node.service(),
        api_key=KEY,
        max_body_bytes=LIMIT_BYTES,
        body_timeout_seconds=0.05,
        meter=meter,
        wrong_keys=WrongKeys(2, lambda: 0.0),
        drain_seconds=0.01,
    )
    length = {} if body is None else {"content-length": "1"}
    closed = []
    for key in ("wrong", "", KEY, "wrong", "wrong", KEY):
        call = Call("GET", "/info", {"x-api-key": key, **length}, [] if body is None else [part(body)])
        answer = await call.run(app)
        assert answer.status == (200 if key == KEY else 401)
        closed.append(answer.headers.get(b"connection") == b"close")
    expected = [False, False, False, True, True, False] if body is None else [True, True, False, True, True, False]
    assert closed == expected
    assert (meter.unauthenticated, meter.limited) == (4, 2)


@pytest.mark.parametrize("as_json", [False, True])
async def test_what_is_taken_is_a_group_of_its_own(app: App, meter: FaceMeter, node: Node, as_json: bool) -> None:
    request = pb.StatRequest(name="", type=pb.StatType.UsersStat, reset=True)
    body = json.dumps({"type": "UsersStat", "reset": True}).encode() if as_json else request.SerializeToString()
    content_type = "application/json" if as_json else "application/x-protobuf"
    assert await send(app, "GET", "/stats", body, content_type=content_type) == 200
    assert [kind for kind, _, _ in node.commands.calls] == [Kind.TAKE_STATS]
    assert meter.calls == {"GetStats": {"OK": 1}}
    assert timed(meter) == {"take": 1}


async def test_a_caller_who_goes_before_the_answer(app: App, meter: FaceMeter) -> None:
    call = Call(
        "PUT", "/user/sync", keyed(content_length="5", content_type="application/x-protobuf"), [part(b"x", more=True)]
    )
    task = asyncio.create_task(call.run(app))
    await eventually(lambda: meter.in_flight, "the request has begun")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert meter.calls == {"SyncUser": {"CANCELLED": 1}}
    assert meter.in_flight == 0
