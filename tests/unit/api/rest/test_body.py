"""A handler gets the whole body, or is not called."""

from __future__ import annotations

import pytest

from pgnode.api.rest.asgi import App, Event
from pgnode.bus.commands import Kind
from tests.unit.api.fakes import GONE, Call, Node, part
from tests.unit.api.rest.requests import USER, error_of, keyed


@pytest.mark.parametrize("size", [1, 2, 3, len(USER)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_in_any_pieces(app: App, node: Node, size: int, chunked: bool) -> None:
    framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(USER))}
    events = [part(USER[at : at + size], more=True) for at in range(0, len(USER), size)]
    answer = await Call("PUT", "/user/sync", {**keyed(), **framing}, [*events, part(b"")]).run(app)
    assert answer.status == 200
    assert node.commands.calls == [(Kind.SYNC_USER, USER, 30.0)]


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
