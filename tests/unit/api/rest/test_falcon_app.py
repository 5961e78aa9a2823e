"""The application behind the pipeline: routes, ages, errors."""

from __future__ import annotations

import pytest

from pgnode.api.methods import METHODS, Method
from pgnode.api.rest.asgi import App
from pgnode.bus.indexed import IndexedBlock, name_hash, pack
from pgnode.errors import StartFailedError, UsersRefusedError
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import GONE, Call, Node, part, status
from tests.unit.api.rest.requests import USER, error_of, keyed


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.grpc_name)
async def test_every_path_is_there_with_and_without_a_slash(app: App, row: Method) -> None:
    for path in (row.path, row.path + "/"):
        call = Call(row.http_method, path, keyed(content_length="0"), [GONE])
        answer = await call.run(app)
        assert answer.status not in (404, 405)
        assert answer.status != 501


async def test_an_empty_message_is_an_empty_body(app: App) -> None:
    answer = await Call("PUT", "/stop", keyed(), []).run(app)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers[b"content-length"] == b"0"
    assert answer.headers[b"content-type"] == b"application/x-protobuf"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/", 404),
        ("GET", "/info//", 404),
        ("POST", "/info", 405),
        ("GET", "/user/sync", 405),
        ("OPTIONS", "/info", 405),
        ("OPTIONS", "/nowhere", 404),
    ],
)
@pytest.mark.parametrize("length", ["0", "50"])
async def test_unknown_paths_and_methods_wait_for_no_body(
    app: App, node: Node, *, method: str, path: str, code: int, length: str
) -> None:
    call = Call(method, path, keyed(content_length=length), [])
    answer = await call.run(app)
    assert answer.status == code
    assert error_of(answer)["code"] == {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}[code]
    assert (answer.headers.get(b"connection") == b"close") is (length == "50")
    if code == 405:
        allowed = answer.headers[b"allow"].decode()
        assert "OPTIONS" not in allowed
        assert error_of(answer)["error"] == f"{method} is not allowed here, {allowed} is"
    assert not node.commands.calls


async def test_head_is_not_allowed(app: App) -> None:
    answer = await Call("HEAD", "/info", keyed(), []).run(app)
    assert (answer.status, answer.body) == (405, b"")
    assert answer.headers[b"x-error-code"] == b"METHOD_NOT_ALLOWED"


@pytest.mark.parametrize("path", ["/stats", "/stats/user/online", "/stats/user/online_ip"])
@pytest.mark.parametrize("accept", ["*/*", "application/json"])
async def test_statistics_say_how_old_they_are(app: App, node: Node, path: str, accept: str) -> None:
    online = pb.StatsOnlineIpListResponse(name="alice", ips={"127.0.0.2": 10}).SerializeToString()
    node.reads.blocks = {
        "stats.users": IndexedBlock(pack([])),
        "online": IndexedBlock(pack([(name_hash("alice"), online)])),
    }
    node.reads.age = 3.7
    body = pb.StatRequest(type=pb.StatType.UserStat, name="alice").SerializeToString()
    answer = await Call("GET", path, keyed(content_length=str(len(body)), accept=accept), [part(body)]).run(app)
    assert (answer.status, answer.headers[b"age"]) == (200, b"3")


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
async def test_what_is_handed_out_has_no_age(app: App, node: Node, accept: str) -> None:
    node.reads.age = 3.7
    body = pb.StatRequest(type=pb.StatType.UsersStat, reset=True).SerializeToString()
    answer = await Call("GET", "/stats", keyed(content_length=str(len(body)), accept=accept), [part(body)]).run(app)
    assert answer.status == 200
    assert b"age" not in answer.headers


@pytest.mark.parametrize(
    ("error", "code", "name", "retry"),
    [
        (StartFailedError("port 443 is in use"), 503, "START_FAILED", b"1"),
        (UsersRefusedError("failed to update users: a\u00e9: bad"), 500, "USER_REJECTED", None),
        (RuntimeError("secret"), 500, "INTERNAL", None),
    ],
)
async def test_errors_in_the_documented_form(
    app: App, node: Node, *, error: Exception, code: int, name: str, retry: bytes | None
) -> None:
    node.commands.error = error
    answer = await Call("PUT", "/user/sync", keyed(content_length=str(len(USER))), [part(USER)]).run(app)
    assert answer.status == code
    body = error_of(answer)
    assert body["code"] == name
    assert answer.headers.get(b"retry-after") == retry
    if isinstance(error, RuntimeError):
        assert body["error"].startswith("internal error")
        assert "secret" not in body["error"]
    else:
        assert body["error"] == str(error)


async def test_the_state_reaches_the_caller(app: App, node: Node) -> None:
    node.reads.status = status("idle")
    answer = await Call("GET", "/stats/backend", keyed(), []).run(app)
    assert answer.status == 503
    assert error_of(answer) == {"error": "backend not initialized", "code": "BACKEND_NOT_INITIALIZED"}
    assert answer.headers[b"retry-after"] == b"1"
