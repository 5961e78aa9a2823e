"""Answers whose delivery is tracked: what the server knows of one is told, once."""

from __future__ import annotations

import pytest

from pgnode.api.rest.asgi import App, Event
from pgnode.api.rest.context import CONNECTION
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import Call, Node, part
from tests.unit.api.rest.requests import keyed


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

        def close_after_answer(self) -> None:
            raise AssertionError("no refusal")

        def answer_is_endless(self) -> None:
            raise AssertionError("no log")

        async def arrived(self, answer_bytes: int) -> bool:
            asked.append(answer_bytes)
            return arrives

        def close(self, _answer_bytes: int) -> bool:
            return arrives

    call.scope[CONNECTION] = Watch()
    answer = await call.run(app)
    headers = sum(len(name) + len(value) + 4 for name, value in answer.headers.items())
    assert asked == [headers + len(b"taken")]
    assert node.commands.settled == [arrives]
