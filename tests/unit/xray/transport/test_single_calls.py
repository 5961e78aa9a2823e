"""Single calls with answers against a scripted peer; tests/unit/xray/client/test_channel.py has the usual ones."""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pgnode.xray.transport import outcome
from pgnode.xray.transport.outcome import Failure
from pgnode.xray.transport.single_calls import SingleCallClient, message_of
from tests.support.polling import eventually
from tests.unit.xray.transport.http2_peer import Peer
from tests.unit.xray.transport.test_pipelined import answered, serve_peer

DEADLINE_SECONDS = 20.0
MOST_BYTES = 100_000


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder with a path short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def client(run_dir: Path) -> AsyncIterator[SingleCallClient]:
    found = SingleCallClient(run_dir / "core.sock", max_answer_bytes=MOST_BYTES)
    yield found
    await found.aclose()


def answer_by_size(peer: Peer, _number: int) -> None:
    """Answer each call with as many bytes as its path says; "/never" is not answered."""
    for stream_id, call in list(peer.calls.items()):
        path = call.headers[":path"]
        if call.whole and stream_id not in answered(peer) and path != "/never":
            answered(peer).add(stream_id)
            peer.answer(stream_id, size=int(path[1:]))


async def test_answers_of_any_size(run_dir: Path, client: SingleCallClient) -> None:
    async with serve_peer(run_dir, answer_by_size) as peers:
        sizes = [0, 1, 20_000, MOST_BYTES - 5]
        found = await asyncio.gather(*(client.call(f"/{size}", b"asked", DEADLINE_SECONDS) for size in sizes))
        assert found == [bytes(size) for size in sizes]
        assert len(peers) == 1, "all of them on one connection"
        assert {call.message for call in peers[0].calls.values()} == {b"asked"}


async def test_an_answer_that_is_too_large_ends_that_call_alone(run_dir: Path, client: SingleCallClient) -> None:
    async with serve_peer(run_dir, answer_by_size) as peers:
        large, small = await asyncio.gather(
            client.call(f"/{10 * MOST_BYTES}", b"", DEADLINE_SECONDS), client.call("/7", b"", DEADLINE_SECONDS)
        )
        assert large == Failure(outcome.GRPC_RESOURCE_EXHAUSTED, "an answer of more than 100,000 bytes")
        assert small == bytes(7)
        await eventually(lambda: any(call.cancelled for call in peers[0].calls.values()), "the peer is told")


async def test_a_deadline_ends_no_other_call(run_dir: Path, client: SingleCallClient) -> None:
    async with serve_peer(run_dir, answer_by_size) as peers:
        long = asyncio.create_task(client.call("/never", b"", DEADLINE_SECONDS))
        await eventually(lambda: peers and peers[0].calls, "the first call is there")
        [short] = await asyncio.gather(client.call("/never", b"", 0.05))
        assert isinstance(short, Failure)
        assert short.code == outcome.GRPC_DEADLINE_EXCEEDED
        assert not long.done(), "the connection is the same still"
        assert await client.call("/3", b"", DEADLINE_SECONDS) == bytes(3)
        assert len(peers) == 1
        long.cancel()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([struct.pack(">BI", 0, 2) + b"ab"], b"ab"),
        ([b"\0", b"\0\0", b"", b"\0\x02a", b"b"], b"ab"),
        ([struct.pack(">BI", 0, 0)], b""),
    ],
)
def test_a_message_in_parts(parts: list[bytes], message: bytes) -> None:
    assert message_of(parts) == message
    assert parts == []


@pytest.mark.parametrize(
    "parts", [[], [b"\0\0"], [struct.pack(">BI", 0, 3) + b"ab"], [struct.pack(">BI", 1, 2) + b"ab"]]
)
def test_what_is_no_message(parts: list[bytes]) -> None:
    found = message_of(parts)
    assert isinstance(found, Failure)
    assert found.code == outcome.GRPC_INTERNAL
