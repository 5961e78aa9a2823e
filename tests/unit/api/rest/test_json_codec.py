"""JSON beside protobuf over REST, called without a server."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from pgnode.api.methods import METHODS, Method
from pgnode.api.rest.app import build
from pgnode.api.rest.asgi import App
from pgnode.api.rest.json_codec import JsonCodec
from pgnode.api.rest.negotiation import JsonForm, prefers_json
from pgnode.bus.commands import Kind
from pgnode.errors import InvalidRequestError, UsersRefusedError
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import frame
from tests.unit.api.fakes import GONE, KEY, Answer, Call, Node, part, status

BACKEND_STATS = pb.BackendStatsResponse(num_goroutine=7, alloc=2**40)


@pytest.fixture
def node() -> Node:
    made = Node()
    made.reads.bodies = {"system": b"", "backend": BACKEND_STATS.SerializeToString()}
    return made


@pytest.fixture
def app(node: Node) -> App:
    return build(node.service(), api_key=KEY, max_body_bytes=1_000_000, body_timeout_seconds=1.0, drain_seconds=0.01)


async def ask(app: App, method: str, path: str, *, sent: Any = None, accept: str = "application/json") -> Answer:
    """One call; ``sent`` is the body, text as it is and anything else as JSON."""
    headers = {"x-api-key": KEY, "accept": accept}
    events = []
    if sent is not None:
        body = (sent if isinstance(sent, str) else json.dumps(sent)).encode(errors="surrogatepass")
        headers |= {"content-type": "application/json; charset=utf-8", "content-length": str(len(body))}
        events.append(part(body))
    return await Call(method, path, headers, events).run(app)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"application/json", True),
        (b"Application/JSON;q=0.5, */*", True),
        (b"text/html, application/json; charset=utf-8", True),
        (b"application/x-protobuf;q=0.4, application/json;q=0.5", True),
        (b"application/json, application/x-protobuf", False),
        (b"application/json;q=0", False),
        (b"application/json;q=0.4, application/x-protobuf;q=0.5", False),
        (b"application/json;q=x", True),
        (b"*/*", False),
        (b"application/*", False),
        (b"", False),
        (b"\xff;=,,;", False),
    ],
)
def test_who_asks_for_json(accept: bytes, *, wanted: bool) -> None:
    assert prefers_json(accept) is wanted


async def test_an_answer_as_json(app: App) -> None:
    answer = await ask(app, "GET", "/stats/backend")
    assert answer.status == 200
    assert answer.headers[b"content-type"] == b"application/json"
    body = json.loads(answer.body)
    assert set(body) == set(pb.BackendStatsResponse.DESCRIPTOR.fields_by_name)
    assert body["num_goroutine"] == 7
    assert body["alloc"] == str(2**40)


@pytest.mark.parametrize("accept", ["*/*", "application/x-protobuf", "text/plain"])
async def test_everybody_else_gets_protobuf(app: App, accept: str) -> None:
    answer = await ask(app, "GET", "/stats/backend", accept=accept)
    assert answer.headers[b"content-type"] == b"application/x-protobuf"
    assert pb.BackendStatsResponse.FromString(answer.body) == BACKEND_STATS


async def test_an_empty_answer_is_an_empty_object(app: App) -> None:
    answer = await ask(app, "PUT", "/stop")
    assert (answer.status, json.loads(answer.body)) == (200, {})


@pytest.mark.parametrize("row", [row for row in METHODS if row.takes_body], ids=lambda row: row.grpc_name)
async def test_every_message_may_be_sent_as_json(app: App, row: Method) -> None:
    answer = await ask(app, row.http_method, row.path, sent={"nonsense": 1})
    assert answer.status == 400
    assert json.loads(answer.body)["error"].startswith("nonsense: unknown field: ")
    # An object of the right kind reaches the handler, which has its own opinion of emptiness.
    answer = await ask(app, row.http_method, row.path, sent={})
    assert "unknown field" not in answer.body.decode()


async def test_json_in_protobuf_out(app: App, node: Node) -> None:
    user = pb.User(email="alice", inbounds=["A"], proxies=pb.Proxy(vless=pb.Vless(id="1")))
    sent = {"email": "alice", "inbounds": ["A"], "proxies": {"vless": {"id": "1"}}}
    answer = await ask(app, "PUT", "/user/sync", sent=sent, accept="*/*")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers[b"content-type"] == b"application/x-protobuf"
    assert node.commands.calls == [(Kind.SYNC_USER, user.SerializeToString(), 30.0)]


async def test_a_chunked_sync_is_one_list(app: App, node: Node) -> None:
    answer = await ask(app, "PUT", "/users/sync/chunked", sent={"users": [{"email": "a"}, {"email": "b"}]})
    assert (answer.status, json.loads(answer.body)) == (200, {})
    users = pb.Users(users=[pb.User(email="a"), pb.User(email="b")])
    assert [call[:2] for call in node.commands.calls] == [(Kind.SYNC_CHUNKED, users.SerializeToString())]


async def test_a_chunked_sync_of_nobody_is_fine(app: App, node: Node) -> None:
    assert (await ask(app, "PUT", "/users/sync/chunked", sent="")).status == 200
    assert [call[:2] for call in node.commands.calls] == [(Kind.SYNC_CHUNKED, b"")]


async def test_large_messages_are_converted_in_threads() -> None:
    row = next(row for row in METHODS if row.grpc_name == "GetStats")
    answer = pb.StatResponse(stats=[pb.Stat(name="a" * 20)])
    threads: list[int] = []

    def handler(body: bytes) -> bytes:
        threads.append(threading.get_ident())
        assert pb.StatRequest.FromString(body).type == pb.UsersStat
        return answer.SerializeToString()

    codec = JsonCodec(thread_bytes=10)
    form = JsonForm(body=True, answer=True)
    assert repr(codec) == "JsonCodec(idle)"
    text = await codec.answer(row, handler, b'{"type": "UsersStat"}', form)
    assert json.loads(text)["stats"][0]["name"] == "a" * 20
    assert threads == [threading.get_ident()], "the handler itself stays where it was called"
    with pytest.raises(InvalidRequestError, match="NobodysStat"):
        await codec.answer(row, handler, b'{"type": "NobodysStat"}', form)


@pytest.mark.parametrize(
    ("path", "sent", "text"),
    [
        ("/users/sync", [], "Users: an object is expected, not a list"),
        ("/users/sync", "\ud800", "malformed JSON: byte 0 is no UTF-8"),
        ("/users/sync", "{", "malformed JSON: "),
        ("/users/sync", {"users": [{"email": 1}]}, "users[0].email: a string is expected, not a number"),
        ("/users/sync/chunked", {"users": [], "last": True}, "last: unknown field: Users has users"),
        ("/users/sync/chunked", frame(pb.UsersChunk(last=True)).decode(), "malformed JSON: "),
    ],
)
async def test_bad_json_reaches_no_handler_and_the_connection_stays(
    app: App, node: Node, *, path: str, sent: Any, text: str
) -> None:
    answer = await ask(app, "PUT", path, sent=sent)
    assert answer.status == 400
    assert json.loads(answer.body)["error"].startswith(text)
    assert json.loads(answer.body)["code"] == "INVALID_ARGUMENT"
    assert b"connection" not in answer.headers
    assert not node.commands.calls


async def test_the_errors_are_the_same(app: App, node: Node) -> None:
    node.commands.error = UsersRefusedError("failed to update users: a: bad id")
    answer = await ask(app, "PUT", "/users/sync", sent={"users": [{"email": "a"}]})
    assert answer.status == 500
    assert json.loads(answer.body) == {"error": "failed to update users: a: bad id", "code": "USER_REJECTED"}
    node.reads.status = status("recovering")
    answer = await ask(app, "GET", "/stats/backend")
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "CORE_NOT_STARTED")
    assert answer.headers[b"retry-after"] == b"1"


async def test_json_cut_short_is_refused_before_anything_is_made_of_it(app: App, node: Node) -> None:
    headers = {"x-api-key": KEY, "content-type": "application/json", "content-length": "20"}
    answer = await Call("PUT", "/users/sync", headers, [part(b'{"users": []}', more=True), GONE]).run(app)
    assert answer.status == 400
    assert json.loads(answer.body)["error"].startswith("the body was cut short")
    assert not node.commands.calls


async def test_logs_as_json(app: App, node: Node) -> None:
    call = Call("GET", "/logs", {"x-api-key": KEY, "accept": "application/json"}, [])
    for entry in (("1-0", b'say "hi"'), ("2-0", b"a\xffb"), None):
        node.logs.queue.put_nowait(entry)
    viewing = asyncio.ensure_future(app(call.scope, call.receive, call.send))
    async with asyncio.timeout(5):
        start, *pieces = [await call.sent.get() for _ in range(5)]
        call.events.put_nowait(GONE)
        await viewing
    assert dict(start["headers"])[b"content-type"] == b"application/x-ndjson"
    assert [piece["body"] for piece in pieces] == [
        b"\n",
        b'{"detail": "say \\"hi\\""}\n',
        '{"detail": "a\ufffdb"}\n'.encode(),
        b"\n",
    ]
