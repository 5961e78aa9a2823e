"""Starts, stops and syncs: what is refused here, and what goes on to the supervisor."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pgnode.api.service.changes import ChangeCalls
from pgnode.bus.commands import Kind
from pgnode.errors import InvalidRequestError, NodeError, TooLargeError, UnsupportedError
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import frame
from tests.unit.api.fakes import Node, status

USER = pb.User(email="alice").SerializeToString()


def calls_of(node: Node, *, max_body_bytes: int = 1000) -> ChangeCalls:
    return ChangeCalls(node.commands, node.refresh, write_timeout_seconds=30.0, max_body_bytes=max_body_bytes)


async def stream(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


@pytest.mark.parametrize(
    ("handler", "body", "error", "text"),
    [
        ("start", b"", InvalidRequestError, "empty config"),
        ("start", pb.Backend(type=pb.WIREGUARD).SerializeToString(), InvalidRequestError, "empty config"),
        ("start", b"\x08\x02", UnsupportedError, "backend type 2"),
        ("sync_user", b"", InvalidRequestError, "empty email"),
        ("sync_users", b"\x0a\x09\x0a", InvalidRequestError, "malformed Users"),
        ("sync_users_chunked", b"", InvalidRequestError, "missing final chunk"),
    ],
)
async def test_bad_input_reaches_no_supervisor(handler: str, body: bytes, error: type[NodeError], text: str) -> None:
    node = Node()
    with pytest.raises(error, match=text):
        await getattr(calls_of(node), handler)(body)
    assert not node.commands.calls


async def test_after_a_start_and_a_stop_this_worker_knows_the_new_state() -> None:
    node = Node(news=status("starting"))
    calls = calls_of(node)
    await calls.start(pb.Backend(config="{}").SerializeToString())
    assert node.reads.status == node.news
    await calls.stop()
    assert node.refreshes == 2
    assert [kind for kind, _, _ in node.commands.calls] == [Kind.START, Kind.STOP]


async def test_bodies_and_streams_become_the_same_commands() -> None:
    node = Node()
    calls = calls_of(node)
    users = pb.Users(users=[pb.User(email="alice")]).SerializeToString()
    chunk = pb.UsersChunk(users=[pb.User(email="alice")], last=True)
    await calls.sync_user(USER)
    await calls.sync_user_stream(stream(USER))
    await calls.sync_users(users)
    await calls.sync_users_chunked(frame(chunk))
    await calls.sync_users_chunked_stream(stream(chunk.SerializeToString()))
    assert node.commands.calls == [
        (Kind.SYNC_USER, USER, 30.0),
        (Kind.SYNC_USER, USER, 30.0),
        (Kind.SYNC_USERS, users, 30.0),
        (Kind.SYNC_CHUNKED, users, 30.0),
        (Kind.SYNC_CHUNKED, users, 30.0),
    ]
    assert repr(calls) == "ChangeCalls(30 s)"


async def test_a_stream_has_the_limit_of_a_body() -> None:
    node = Node()
    chunk = pb.UsersChunk(users=[pb.User(email="a" * 50)]).SerializeToString()
    with pytest.raises(TooLargeError):
        await calls_of(node, max_body_bytes=50).sync_users_chunked_stream(stream(chunk))
    assert not node.commands.calls
