"""The key, in any notation and in either header."""

from __future__ import annotations

import uuid

import pytest

from pgnode.api.auth import CURRENT, METRICS, PREVIOUS, ApiKeys
from pgnode.api.rest.asgi import App
from pgnode.api.rest.auth_step import AuthStep
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import KEY, Call, Node
from tests.unit.api.rest.requests import error_of


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"x-api-key": KEY.upper()},
        {"x-api-key": "{" + KEY + "}"},
        {"x-api-key": KEY.replace("-", "")},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY.upper()}"},
        {"x-api-key": "wrong", "authorization": f"Bearer {KEY}"},
    ],
)
async def test_the_key_in_any_notation(app: App, headers: dict[str, str]) -> None:
    answer = await Call("GET", "/info", headers, []).run(app)
    assert answer.status == 200
    assert pb.BaseInfoResponse.FromString(answer.body).started


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": str(uuid.UUID(int=uuid.UUID(KEY).int ^ 1))},
        {"x-api-key": KEY + "0"},
        {"x-api-key": "\u00e9" * 40},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/info"), ("PUT", "/user/sync"), ("GET", "/nowhere")])
async def test_no_key_no_answer(app: App, node: Node, headers: dict[str, str], method: str, path: str) -> None:
    answer = await Call(method, path, headers, []).run(app)
    assert answer.status == 401
    assert error_of(answer)["code"] == "UNAUTHENTICATED"
    assert b"connection" not in answer.headers
    assert not node.commands.calls


async def test_401_goes_out_before_the_body_is_read(app: App) -> None:
    call = Call("PUT", "/users/sync", {"content-length": "50"}, [])
    answer = await call.run(app)
    assert answer.status == 401
    assert answer.headers[b"connection"] == b"close"
    assert call.received == 0


def test_the_previous_key_goes_on_and_ends() -> None:
    old, called = str(uuid.UUID(int=1)), list[None]()
    keys = ApiKeys(old)
    step = AuthStep(keys, lambda: called.append(None), "a key for metrics")
    keys.replace(KEY, old)
    sent = [{b"x-api-key": text.encode()} for text in (KEY, old, "a key for metrics", "wrong")]
    assert [step.admits(headers) for headers in sent] == [CURRENT, PREVIOUS, METRICS, ""]
    assert len(called) == 2
    keys.replace(KEY, None)
    assert [step.admits(headers) for headers in sent[:2]] == [CURRENT, ""]
