"""What every request passes, in its order."""

from __future__ import annotations

import pytest

from pgnode.api.rest.asgi import App
from pgnode.bus.commands import Kind
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import Call, Node, part
from tests.unit.api.rest.requests import USER, keyed


async def test_get_with_a_body(app: App, node: Node) -> None:
    body = pb.StatRequest(name="alice", type=pb.StatType.UserStat, reset=True).SerializeToString()
    node.commands.reply = b"taken"
    answer = await Call("GET", "/stats", keyed(content_length=str(len(body))), [part(body)]).run(app)
    assert (answer.status, answer.body) == (200, b"taken")
    assert [call[:2] for call in node.commands.calls] == [(Kind.TAKE_STATS, body)]
    assert node.commands.settled == [True]


@pytest.mark.parametrize("value", ["application/x-protobuf", "Application/X-Protobuf; charset=utf-8", ""])
async def test_content_types_that_are_fine(app: App, value: str) -> None:
    headers = keyed(content_length=str(len(USER)), content_type=value)
    assert (await Call("PUT", "/user/sync", headers, [part(USER)]).run(app)).status == 200
