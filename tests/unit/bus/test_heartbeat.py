"""The channel between a gRPC worker and the supervisor: beats one way, the request to stop the other way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
import uvloop

from pgnode.bus.heartbeat import BEAT, LEAVING, OTHERS_SERVE, HeartbeatChannel
from tests.support.polling import pause


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, int]]:
    """The supervisor's end, and the number of the worker's."""
    near, far = socket.socketpair()
    near.setblocking(False)
    yield near, far.detach()
    near.close()


async def received(near: socket.socket, count: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(5):
        while len(data) < count:
            data += await loop.sock_recv(near, 64)
    return data


async def test_beats_come_from_the_start_to_the_end(ends: tuple[socket.socket, int]) -> None:
    near, number = ends
    channel = HeartbeatChannel(number, beat_seconds=0.01)
    assert repr(channel) == "HeartbeatChannel(open)"
    with pytest.raises(BlockingIOError):
        near.recv(1)
    channel.start()
    assert (await received(near, 3))[:3] == BEAT * 3
    channel.leave()
    data = b""
    while not data.endswith(LEAVING * 3):
        data += await received(near, 1)
    channel.close()
    assert repr(channel) == "HeartbeatChannel(closed)"
    # A beat that was due finds the channel closed.
    await pause()
    while await received(near, 0) == b"" and (rest := near.recv(64)):
        assert set(rest) <= set(LEAVING)
    channel.close()


async def test_a_closed_end_means_stop(ends: tuple[socket.socket, int]) -> None:
    near, number = ends
    channel = HeartbeatChannel(number, beat_seconds=0.01)
    channel.start()
    near.send(b"x")  # whatever else comes means nothing
    await pause()
    assert not channel.stop_requested.is_set()
    assert not channel.others_serve
    near.close()
    async with asyncio.timeout(5):
        await channel.stop_requested.wait()
    assert repr(channel) == "HeartbeatChannel(stop requested)"
    channel.leave()  # nobody is there, which does no harm
    channel.close()


async def test_others_may_serve_then(ends: tuple[socket.socket, int]) -> None:
    near, number = ends
    channel = HeartbeatChannel(number, beat_seconds=0.01)
    channel.start()
    near.send(OTHERS_SERVE)
    near.close()
    async with asyncio.timeout(5):
        await channel.stop_requested.wait()
    assert channel.others_serve
    channel.close()


@pytest.mark.parametrize("others_serve", [True, False])
def test_an_end_that_is_closed_with_beats_that_nobody_has_read_means_stop(others_serve: bool) -> None:
    near, far = socket.socketpair()

    async def main() -> bool:
        channel = HeartbeatChannel(far.detach(), beat_seconds=0.01)
        channel.start()
        if others_serve:
            near.send(OTHERS_SERVE)
        # The kernel tells the worker of a reset, and of the end after it.
        near.close()
        async with asyncio.timeout(5):
            await channel.stop_requested.wait()
        channel.close()
        return channel.others_serve

    # As in a worker: asyncio's own loop tells of the end once more.
    assert uvloop.run(main()) is others_serve


async def test_a_supervisor_that_does_not_read_holds_up_nobody(ends: tuple[socket.socket, int]) -> None:
    near, number = ends
    channel = HeartbeatChannel(number)
    for _ in range(5000):
        channel.leave()
    assert len(near.recv(100_000)) > 0
    channel.start()
    channel.close()


async def test_a_worker_started_by_hand_needs_nobody() -> None:
    channel = HeartbeatChannel(None)
    channel.start()
    assert not channel.stop_requested.is_set()
    channel.leave()
    assert channel.stop_requested.is_set()
    channel.close()
