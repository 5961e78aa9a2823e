"""Streams over gRPC on a real server of the library: users as they come, chunks, and viewers of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpc import StatusCode

from pgnode.api.grpc.handlers import SERVICE
from pgnode.bus.commands import Kind
from pgnode.wire import service_pb2 as pb
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually
from tests.unit.api.grpc.stage import CALLS, VIEWERS, Server, refused


async def test_users_and_chunks_reach_the_supervisor(server: Server, caller: GrpcNode) -> None:
    users = [pb.User(email=f"u{number}") for number in range(5)]
    await caller.stream("SyncUser", users)
    await caller.stream("SyncUser", [])
    chunks = [pb.UsersChunk(users=users[:3], index=0), pb.UsersChunk(users=users[3:], index=1, last=True)]
    await caller.stream("SyncUsersChunked", chunks)
    calls = server.node.commands.calls
    assert [kind for kind, _, _ in calls] == [Kind.SYNC_USER] * 5 + [Kind.SYNC_CHUNKED]
    assert [pb.User.FromString(body).email for _, body, _ in calls[:5]] == [found.email for found in users]
    assert pb.Users.FromString(calls[5][1]) == pb.Users(users=users)


async def test_an_incomplete_set_changes_nothing(server: Server, caller: GrpcNode) -> None:
    for chunks, text in (
        ([pb.UsersChunk(index=0), pb.UsersChunk(index=2, last=True)], "missing chunk index 1"),
        ([pb.UsersChunk(index=0)], "missing final chunk indicator"),
        ([pb.UsersChunk(index=1), pb.UsersChunk(index=0, last=True)], "beyond the last chunk"),
    ):
        with refused(StatusCode.INVALID_ARGUMENT, text):
            await caller.stream("SyncUsersChunked", chunks)
    assert server.node.commands.calls == []


async def test_a_stream_that_breaks_off_leaves_what_came_applied(server: Server, caller: GrpcNode) -> None:
    sent = asyncio.Event()

    async def some() -> AsyncIterator[bytes]:
        for number in range(3):
            yield pb.User(email=f"u{number}").SerializeToString()
        sent.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(caller.stream("SyncUser", some()))
    await sent.wait()
    await eventually(lambda: len(server.node.commands.calls) == 3, "all that was sent is applied")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await caller.call("GetBaseInfo")).started


async def test_calls_beyond_the_limit_are_refused_and_probes_never(server: Server, caller: GrpcNode) -> None:
    held = [
        caller.channel.stream_unary(f"/{SERVICE}/SyncUser")(metadata=caller.metadata, timeout=20) for _ in range(CALLS)
    ]
    for call in held:
        await call.write(pb.User(email="u").SerializeToString())
    await eventually(lambda: len(server.node.commands.calls) == CALLS, "all are under way")
    with refused(StatusCode.RESOURCE_EXHAUSTED, f"too many calls: {CALLS} are under way", "RESOURCE_EXHAUSTED"):
        await caller.call("SyncUsers", pb.Users())
    assert (await caller.call("GetBaseInfo")).started
    for call in held:
        await call.done_writing()
        await call
    await caller.call("SyncUsers", pb.Users())


async def test_viewers_get_lines_as_they_come_and_begin_at_once(server: Server, caller: GrpcNode) -> None:
    viewer = caller.logs()
    async with asyncio.timeout(10):
        await viewer.initial_metadata()
        assert server.node.logs.watching == 1, "the log is open before the headers go out"
        await server.node.logs.queue.put(None)
        await server.node.logs.queue.put(("1-0", b"not \xff UTF-8"))
        assert pb.Log.FromString(await viewer.read()).detail == "not \ufffd UTF-8", "no heartbeat before it"
    assert server.node.logs.watching == 1
    viewer.cancel()
    await eventually(lambda: server.node.logs.watching == 0, "the viewer has gone")


async def test_viewers_beyond_the_limit_are_refused(server: Server, caller: GrpcNode) -> None:
    viewers = [caller.logs() for _ in range(VIEWERS)]
    for viewer in viewers:
        await viewer.initial_metadata()
    with refused(StatusCode.RESOURCE_EXHAUSTED, f"too many log viewers: {VIEWERS} are under way"):
        async for _ in caller.logs():
            raise AssertionError("a line")
    viewers[0].cancel()
    await eventually(lambda: server.node.logs.watching == VIEWERS - 1, "a slot is free again")
    await caller.logs().initial_metadata()


async def test_viewers_are_told_when_the_worker_ends(server: Server, caller: GrpcNode) -> None:
    viewer = caller.logs()
    await viewer.initial_metadata()
    await eventually(lambda: server.node.logs.watching == 1, "the viewer is there")
    server.handlers.end_viewers()
    with refused(StatusCode.UNAVAILABLE, "this worker is ending"):
        async for _ in viewer:
            raise AssertionError("a line")
