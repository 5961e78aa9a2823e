"""Answers without the application are those that the application would give."""

from __future__ import annotations

import pytest

from pgnode.api.methods import METHODS
from pgnode.api.rest import asgi
from pgnode.api.rest.asgi import App
from pgnode.api.rest.falcon_app import falcon_app
from pgnode.api.rest.fast_path import CachedAnswer, RouteKey
from pgnode.bus.indexed import IndexedBlock, name_hash, pack
from pgnode.errors import BusUnavailableError, UsersRefusedError
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import Call, Node, part
from tests.unit.api.rest.requests import USER, error_of, keyed, pipeline

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
