"""The pipeline and the Falcon application behind it, called without a server."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping

import pytest

from pgnode.api.methods import METHODS, Method
from pgnode.api.rest import asgi
from pgnode.api.rest.app import build
from pgnode.api.rest.asgi import App, Event
from pgnode.api.rest.auth_step import AuthStep
from pgnode.api.rest.body import BodyReader
from pgnode.api.rest.context import attach_connection
from pgnode.api.rest.falcon_app import falcon_app
from pgnode.api.rest.fast_path import CachedAnswer, DirectHandler
from pgnode.api.rest.pipeline import RequestPipeline, RouteKey
from pgnode.bus.commands import Kind
from pgnode.bus.indexed import IndexedBlock, name_hash, pack
from pgnode.errors import BusUnavailableError, StartFailedError, UsersRefusedError
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import GONE, KEY, Answer, Call, Node, part, status

LIMIT_BYTES = 100
USER = pb.User(email="alice").SerializeToString()


@pytest.fixture
def node() -> Node:
    made = Node()
    made.reads.bodies = {"system": b"sys", "backend": b"back"}
    return made


@pytest.fixture
def app(node: Node) -> App:
    return build(node.service(), api_key=KEY, max_body_bytes=LIMIT_BYTES, body_timeout_seconds=0.05, drain_seconds=0.01)


def pipeline(
    app: App,
    *,
    cached: dict[RouteKey, CachedAnswer] | None = None,
    direct: Mapping[RouteKey, DirectHandler] | None = None,
) -> RequestPipeline:
    body = BodyReader(max_bytes=99, timeout_seconds=1, size_setting=None)
    return RequestPipeline(app, METHODS, AuthStep(KEY, lambda: None), body, cached=cached, direct=direct)


def keyed(**headers: str) -> dict[str, str]:
    return {"x-api-key": KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}


def error_of(answer: Answer) -> dict[str, str]:
    assert answer.headers[b"content-type"] == b"application/json"
    assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
    body = json.loads(answer.body)
    assert set(body) == {"error", "code"}
    return dict(body)


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
    assert answer.headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize("size", [1, 2, 3, len(USER)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_in_any_pieces(app: App, node: Node, size: int, chunked: bool) -> None:
    framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(USER))}
    events = [part(USER[at : at + size], more=True) for at in range(0, len(USER), size)]
    answer = await Call("PUT", "/user/sync", {**keyed(), **framing}, [*events, part(b"")]).run(app)
    assert answer.status == 200
    assert node.commands.calls == [(Kind.SYNC_USER, USER, 30.0)]


async def test_get_with_a_body(app: App, node: Node) -> None:
    body = pb.StatRequest(name="alice", type=pb.StatType.UserStat, reset=True).SerializeToString()
    node.commands.reply = b"taken"
    answer = await Call("GET", "/stats", keyed(content_length=str(len(body))), [part(body)]).run(app)
    assert (answer.status, answer.body) == (200, b"taken")
    assert [call[:2] for call in node.commands.calls] == [(Kind.TAKE_STATS, body)]
    assert node.commands.settled == [True]


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


STAT = pb.StatResponse(stats=[pb.Stat(name="alice", type="uplink", link="traffic", value=5)]).SerializeToString()


@pytest.mark.parametrize("age", [None, 3.7])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/stats", pb.StatRequest(type=pb.UserStat, name="alice").SerializeToString()),
        ("/stats", pb.StatRequest(type=pb.UserStat, name="carol").SerializeToString()),
        ("/stats/", pb.StatRequest(type=pb.UsersStat).SerializeToString()),
    ],
)
async def test_what_is_at_hand_is_told_as_the_application_would(
    node: Node, path: str, body: bytes, age: float | None
) -> None:
    node.reads.bodies = {"system": pb.SystemStatsResponse(mem_total=7).SerializeToString(), "backend": b"back"}
    node.reads.blocks, node.reads.age = {"stats.users": IndexedBlock(pack([(name_hash("alice"), STAT)]))}, age
    service = node.service()
    passed: list[str] = []

    async def counting(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        passed.append(scope["path"])
        await falcon_app(service)(scope, receive, send)

    def made(cached: dict[RouteKey, CachedAnswer]) -> App:
        return pipeline(counting, cached=cached)

    row = next(row for row in METHODS if row.cached and row.path == path.rstrip("/"))
    cached = CachedAnswer(getattr(service, row.cached_handler), service.stats_age if row.aged else None)
    answers = []
    # Twice the long way, which a body that was not seen before goes anyway.
    for app in (made({}), made({}), made({("GET", row.path): cached})):
        call = Call("GET", path, keyed(content_length=str(len(body))), [part(body)])
        answers.append(await call.run(app))
    assert passed == [path, path]
    assert answers[0] == answers[1] == answers[2]
    assert answers[2].status == 200
    assert (b"age" in answers[2].headers) == (row.aged and age is not None)


@pytest.mark.parametrize("body", [USER, b"", b"\xff"], ids=["user", "nobody", "no message"])
@pytest.mark.parametrize(
    "error",
    [None, UsersRefusedError("failed to update users: alice: no"), BusUnavailableError("away"), RuntimeError("broken")],
    ids=str,
)
async def test_who_does_not_pass_the_application_is_answered_as_by_it(
    node: Node, body: bytes, error: Exception | None
) -> None:
    node.commands.error = error
    service = node.service()
    answers, calls = [], []
    for direct in ({}, {("PUT", "/user/sync"): service.sync_user}):
        node.commands.calls = []
        app = pipeline(falcon_app(service), direct=direct)
        call = Call("PUT", "/user/sync", keyed(content_length=str(len(body))), [part(body)])
        answers.append(await call.run(app))
        calls.append(node.commands.calls)
    assert answers[0] == answers[1]
    # An error was not tried a second time.
    assert calls[0] == calls[1]
    assert len(calls[1]) == (body == USER)


async def test_an_answer_at_hand_that_breaks_is_the_applications(
    app: App, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_name: str) -> bytes:
        raise RuntimeError("broken")

    body = pb.StatRequest(type=pb.UserStat, name="alice").SerializeToString()
    node.reads.blocks = {"stats.users": IndexedBlock(pack([(name_hash("alice"), STAT)]))}
    call = Call("GET", "/stats", keyed(content_length=str(len(body))), [part(body)])
    assert (await call.run(app)).body == STAT
    monkeypatch.setattr(node.reads, "fresh_block", broken)
    monkeypatch.setattr(node.reads, "block", broken)
    answer = await Call("GET", "/stats", keyed(content_length=str(len(body))), [part(body)]).run(app)
    assert answer.status == 500
    assert error_of(answer)["code"] == "INTERNAL"


async def test_a_booked_answer_that_could_not_be_sent_is_told_as_lost(app: App, node: Node) -> None:
    body = pb.StatRequest(type=pb.StatType.UsersStat, reset=True).SerializeToString()
    call = Call("GET", "/stats", keyed(content_length=str(len(body))), [part(body)])
    sent: list[str] = []

    async def breaks(event: Event) -> None:
        sent.append(event["type"])
        if event["type"] == "http.response.body":
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await app(call.scope, call.receive, breaks)
    assert node.commands.settled == [False]


@pytest.mark.parametrize("arrives", [True, False])
async def test_the_server_knows_whether_a_booked_answer_arrived(app: App, node: Node, arrives: bool) -> None:
    body = pb.StatRequest(type=pb.StatType.UsersStat, reset=True).SerializeToString()
    node.commands.reply = b"taken"
    call = Call("GET", "/stats", keyed(content_length=str(len(body))), [part(body)])
    asked: list[int] = []

    class Watch:
        def watch_delivery(self) -> Watch:
            return self

        def allow_slow_reader(self) -> None:
            raise AssertionError("no log")

        async def arrived(self, answer_bytes: int) -> bool:
            asked.append(answer_bytes)
            return arrives

        def close(self, _answer_bytes: int) -> bool:
            return arrives

    attach_connection(call.scope, Watch())
    answer = await call.run(app)
    headers = sum(len(name) + len(value) + 4 for name, value in answer.headers.items())
    assert asked == [headers + len(b"taken")]
    assert node.commands.settled == [arrives]


async def test_a_body_nobody_asked_for_is_read_away(app: App) -> None:
    call = Call("GET", "/info", keyed(content_length="3"), [part(b"abc")])
    answer = await call.run(app)
    assert answer.status == 200
    assert b"connection" not in answer.headers
    assert call.received == 1


async def test_an_explicit_empty_set_is_an_order(app: App, node: Node) -> None:
    answer = await Call("PUT", "/users/sync", keyed(content_length="0"), []).run(app)
    assert answer.status == 200
    assert [call[:2] for call in node.commands.calls] == [(Kind.SYNC_USERS, b"")]


@pytest.mark.parametrize(
    ("headers", "events", "code", "text"),
    [
        ({}, [], 411, "no Content-Length"),
        ({"content-length": "3", "transfer-encoding": "chunked"}, [], 400, "both"),
        ({"transfer-encoding": "gzip"}, [], 400, "unknown Transfer-Encoding"),
        ({"content-length": "x"}, [], 400, "Content-Length is not a number"),
        ({"content-length": "-1"}, [], 400, "Content-Length is not a number"),
        ({"content-length": "3", "content-type": "text/json"}, [], 400, "wrong Content-Type"),
        ({"content-length": "101"}, [], 413, "the body has 101 bytes"),
        ({"transfer-encoding": "chunked"}, [part(b"x" * 60, more=True)] * 2, 413, "the body has more than 100 bytes"),
        ({"content-length": "7"}, [part(USER[:4], more=True), GONE], 400, "the body was cut short after 4 bytes of 7"),
        ({"transfer-encoding": "chunked"}, [part(USER[:4], more=True), GONE], 400, "the body was cut short"),
        ({"content-length": "7"}, [part(USER[:4])], 400, "the body has 4 bytes, Content-Length says 7"),
        ({"content-length": "7"}, [part(USER[:4], more=True)], 400, "the body did not arrive within 0.05 s"),
        ({"transfer-encoding": "chunked"}, [], 400, "the body did not arrive within 0.05 s"),
    ],
)
async def test_a_body_that_is_not_whole_or_not_right_reaches_no_handler(
    app: App, node: Node, *, headers: dict[str, str], events: list[Event], code: int, text: str
) -> None:
    answer = await Call("PUT", "/user/sync", {**keyed(), **headers}, events).run(app)
    assert answer.status == code
    assert error_of(answer)["error"].startswith(text)
    assert (answer.headers.get(b"connection") == b"close") is bool(headers)
    assert not node.commands.calls


async def test_two_lengths(app: App, node: Node) -> None:
    call = Call("PUT", "/user/sync", keyed(content_length="7"), [part(USER)])
    call.scope["headers"].insert(0, (b"content-length", b"9"))
    answer = await call.run(app)
    assert answer.status == 400
    assert not node.commands.calls


@pytest.mark.parametrize("value", ["application/x-protobuf", "Application/X-Protobuf; charset=utf-8", ""])
async def test_content_types_that_are_fine(app: App, value: str) -> None:
    headers = keyed(content_length=str(len(USER)), content_type=value)
    assert (await Call("PUT", "/user/sync", headers, [part(USER)]).run(app)).status == 200


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


class Viewer:
    """A caller of /logs, in a task of its own."""

    def __init__(self, app: App, accept: str) -> None:
        self.call = Call("GET", "/logs", keyed(accept=accept), [])
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._run(app))

    async def _run(self, app: App) -> None:
        await app(self.call.scope, self.call.receive, self.call.send)

    async def next(self) -> Event:
        async with asyncio.timeout(5):
            return await self.call.sent.get()

    async def leave(self) -> None:
        self.call.events.put_nowait(GONE)
        async with asyncio.timeout(5):
            await self.task


@pytest.mark.parametrize(
    ("accept", "heartbeat", "line", "broken"),
    [
        ("*/*", b"\n", b"hello\n", "a\ufffdb\n".encode()),
        (
            "text/html, text/event-stream;q=0.9",
            b": \n\n",
            b"id: 1-0\ndata: hello\n\n",
            "id: 2-0\ndata: a\ufffdb\n\n".encode(),
        ),
    ],
)
async def test_logs(app: App, node: Node, *, accept: str, heartbeat: bytes, line: bytes, broken: bytes) -> None:
    viewer = Viewer(app, accept)
    start = await viewer.next()
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-type"] == b"text/event-stream"
    assert (await viewer.next())["body"] == heartbeat
    for entry, expected in ((("1-0", b"hello"), line), (None, heartbeat), (("2-0", b"a\xffb"), broken)):
        node.logs.queue.put_nowait(entry)
        assert (await viewer.next())["body"] == expected
    assert node.logs.watching == 1
    await viewer.leave()
    assert node.logs.watching == 0


async def test_a_cancelled_viewer_leaves_nothing_behind(app: App, node: Node) -> None:
    viewer = Viewer(app, "")
    node.logs.queue.put_nowait(("1-0", b"hello"))
    for _ in range(3):
        await viewer.next()
    viewer.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await viewer.task
    assert node.logs.watching == 0
