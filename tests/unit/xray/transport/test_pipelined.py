"""The pipelined client against a scripted peer: what the real core does only when it is in trouble."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from pgnode.xray.client.users import AlterOperation
from pgnode.xray.transport import frames, outcome
from pgnode.xray.transport.outcome import Failure
from pgnode.xray.transport.pipelined import NOT_ANSWERED, NOT_BEGUN, PipelinedGrpcClient
from tests.support.polling import eventually
from tests.unit.xray.transport.http2_peer import Peer

DEADLINE_SECONDS = 20.0


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder with a path short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def client(run_dir: Path) -> AsyncIterator[PipelinedGrpcClient]:
    found = PipelinedGrpcClient(run_dir / "core.sock", "/service/method")
    yield found
    await found.aclose()


def remove(email: str) -> AlterOperation:
    return AlterOperation.remove("in", email)


async def run(
    client: PipelinedGrpcClient, operations: list[AlterOperation], seconds: float = DEADLINE_SECONDS
) -> list[Failure | None]:
    return await client.run(len(operations), lambda index: operations[index].request(), seconds)


async def test_no_core(client: PipelinedGrpcClient) -> None:
    [failure] = await run(client, [remove("a")])
    assert failure is not None
    assert failure.code == outcome.GRPC_UNAVAILABLE
    assert failure.text.startswith("the core's API cannot be reached: ")
    assert await run(client, []) == []
    assert await run(client, [remove("a")], 0.0) == [NOT_BEGUN]


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serve(run_dir: Path, handler: Handler) -> AsyncIterator[None]:
    """A server on the core's socket; its connections are closed with it."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await handler(reader, writer)
        except asyncio.CancelledError:
            pass  # by the end of this server; streams would log it
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_unix_server(one, run_dir / "core.sock")
    try:
        yield
    finally:
        server.close()
        found = [task for task in tasks if task is not None]
        for task in found:
            task.cancel()
        await asyncio.gather(*found, return_exceptions=True)


Script = Callable[[Peer, int], None]


@contextlib.asynccontextmanager
async def serve_peer(run_dir: Path, script: Script) -> AsyncIterator[list[Peer]]:
    """A server on the core's socket; ``script(peer, number of the connection)`` is called whenever bytes came in."""
    peers: list[Peer] = []
    faults: list[BaseException] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer()
        peers.append(peer)
        number = len(peers)
        try:
            writer.write(peer.take_output())
            while data := await reader.read(65_536):
                peer.receive(data)
                script(peer, number)
                writer.write(peer.take_output())
                await writer.drain()
        except ConnectionError:
            pass
        except Exception as error:
            faults.append(error)
            raise

    async with serve(run_dir, handle):
        yield peers
    assert not faults


def answer_all(peer: Peer, _number: int = 0) -> None:
    for stream_id, call in list(peer.calls.items()):
        if call.whole and stream_id not in answered(peer):
            answered(peer).add(stream_id)
            peer.answer(stream_id)


def answered(peer: Peer) -> set[int]:
    found: set[int] = peer.__dict__.setdefault("answered", set())
    return found


async def test_goodbye_in_the_middle(run_dir: Path, client: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        if number > 1:
            answer_all(peer)
        elif len(peer.calls) == 50:
            # The first ten are answered, the next ten are looked at and answered late, the others not looked at.
            for stream_id in range(1, 20, 2):
                peer.answer(stream_id)
            peer.say_goodbye(39)
            for stream_id in range(21, 40, 2):
                peer.answer(stream_id, 2, "late")

    async with serve_peer(run_dir, script) as peers:
        results = await run(client, [remove(f"{number}") for number in range(50)])
        assert results == [None] * 10 + [Failure(2, "late")] * 10 + [None] * 30
        assert [len(peer.calls) for peer in peers] == [50, 30]


async def test_goodbye_to_every_connection(run_dir: Path, client: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.say_goodbye(0)

    async with serve_peer(run_dir, script):
        [failure] = await run(client, [remove("a")])
        assert failure is not None
        assert failure.code == outcome.GRPC_UNAVAILABLE


async def test_refused_calls_are_sent_again_but_not_for_ever(run_dir: Path, client: PipelinedGrpcClient) -> None:
    refused: set[int] = set()

    def script(peer: Peer, number: int) -> None:
        for stream_id, call in list(peer.calls.items()):
            if call.whole and stream_id not in answered(peer):
                answered(peer).add(stream_id)
                if len(refused) < limit:
                    refused.add(stream_id)
                    peer.reset(stream_id, frames.REFUSED_STREAM)
                else:
                    peer.answer(stream_id)

    async with serve_peer(run_dir, script):
        limit = 2
        assert await run(client, [remove("a"), remove("b")]) == [None, None]
        limit = 1_000_000
        [failure] = await run(client, [remove("a")])
        assert failure is not None
        assert failure.code == outcome.GRPC_UNAVAILABLE


async def test_pings_are_answered_and_cancelled_callers_cancel(run_dir: Path, client: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        if len(peer.calls) == 1 and not peer.pings_answered:
            peer.send(frames.frame(frames.PING, 0, 0, b"are you?"))
        if len(peer.calls) > 1:
            answer_all(peer)

    async with serve_peer(run_dir, script) as peers:
        caller = asyncio.create_task(run(client, [remove("a")]))

        async def pong() -> bool:
            return bool(peers) and peers[0].pings_answered == [b"are you?"]

        await eventually(pong, "the answer to the ping")
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

        async def cancelled() -> bool:
            return peers[0].calls[1].cancelled

        await eventually(cancelled, "the call is reset")
        assert await run(client, [remove("b")]) == [None]
        assert len(peers) == 1


async def test_a_peer_that_speaks_something_else(run_dir: Path, client: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve_peer(run_dir, script) as peers:
        [failure] = await run(client, [remove("a")])
        assert failure is not None
        assert "no HTTP/2 that is understood" in failure.text

        async def told() -> bool:
            return peers[0].goaway is not None

        await eventually(told, "the reason in a GOAWAY")


async def test_each_call_has_an_answer_of_its_own(run_dir: Path, client: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        answer_all(peer)

    async with serve_peer(run_dir, script) as peers:
        assert await run(client, [remove(f"{number}") for number in range(1000)]) == [None] * 1000
        assert "waiting" in repr(client)
        assert [call.message for call in peers[0].calls.values()] == [
            remove(f"{number}").request() for number in range(1000)
        ]
        assert client.connections_made == 1


async def test_followers_wait_for_their_turn(run_dir: Path, client: PipelinedGrpcClient) -> None:
    order: list[bytes] = []

    def script(peer: Peer, number: int) -> None:
        order.extend(call.message for call in list(peer.calls.values())[len(order) :])
        answer_all(peer)

    operations = [remove("a"), remove("b"), remove("c")]
    async with serve_peer(run_dir, script):
        await client.run(3, lambda index: operations[index].request(), DEADLINE_SECONDS, {0: 2, 2: 1})
    assert order == [operations[0].request(), operations[2].request(), operations[1].request()]


async def test_a_message_that_cannot_be_made(run_dir: Path, client: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        answer_all(peer)

    async with serve_peer(run_dir, script):
        with pytest.raises(UnicodeEncodeError):
            await run(client, [remove("a"), remove("\ud800")])
        assert await run(client, [remove("b")]) == [None]


async def test_stream_ids_that_run_out(run_dir: Path) -> None:
    def script(peer: Peer, number: int) -> None:
        answer_all(peer)

    client = PipelinedGrpcClient(run_dir / "core.sock", "/service/method", last_stream_id=19)
    async with serve_peer(run_dir, script) as peers:
        assert await run(client, [remove(f"{number}") for number in range(25)]) == [None] * 25
        assert [len(peer.calls) for peer in peers] == [10, 10, 5]
    await client.aclose()
    [failure] = await run(client, [remove("late")])
    assert failure is not None
    assert "closed" in failure.text


async def test_a_peer_that_falls_silent(run_dir: Path, client: PipelinedGrpcClient) -> None:
    connections = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        peer = Peer()
        while not peer.calls or connections > 1:
            writer.write(peer.take_output())
            if not (data := await reader.read(65_536)):
                return
            peer.receive(data)
            answer_all(peer)
            writer.write(peer.take_output())
        await asyncio.Event().wait()

    async with serve(run_dir, answer_once):
        assert await run(client, [remove("first")]) == [None]
        results = await run(client, [remove(f"{number}") for number in range(500)], 0.2)
        assert set(results) == {NOT_ANSWERED, NOT_BEGUN}
        assert await run(client, [remove("again")]) == [None]
        assert connections == 2, "the silent connection was given up"


async def test_a_connection_that_ends_in_the_middle(run_dir: Path, client: PipelinedGrpcClient) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer()
        writer.write(peer.take_output())
        while not peer.calls:
            peer.receive(await reader.read(65_536))
            writer.write(peer.take_output())

    async with serve(run_dir, hang_up):
        [failure] = await run(client, [remove("a")])
        assert failure == Failure(outcome.GRPC_UNAVAILABLE, "the connection to the core ended")


async def test_a_peer_that_reads_slowly(run_dir: Path, client: PipelinedGrpcClient) -> None:
    reading = asyncio.Event()
    began = asyncio.Event()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer({frames.SETTINGS_INITIAL_WINDOW_SIZE: 2**30})
        peer.grant(0, 2**30)
        writer.write(peer.take_output())
        began.set()
        await reading.wait()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                peer.receive(data)
                answer_all(peer)
                writer.write(peer.take_output())
                await writer.drain()

    operations = [remove(f"{number}" + "x" * 15_000) for number in range(300)]
    async with serve(run_dir, read_late):
        work = asyncio.create_task(run(client, operations))
        await began.wait()
        await eventually(lambda: any(connection.paused for connection in client._connections), "the socket is full")
        reading.set()
        assert await work == [None] * 300


async def test_closing_ends_what_is_under_way(run_dir: Path) -> None:
    def script(peer: Peer, number: int) -> None:
        """Answer nothing."""

    client = PipelinedGrpcClient(run_dir / "core.sock", "/service/method")
    async with serve_peer(run_dir, script) as peers:
        work = asyncio.create_task(run(client, [remove("a")]))
        await eventually(lambda: peers and peers[0].calls, "the call is under way")
        await client.aclose()
        [failure] = await work
        assert failure is not None
        assert failure.code == outcome.GRPC_UNAVAILABLE


async def test_closing_while_it_connects(run_dir: Path) -> None:
    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    client = PipelinedGrpcClient(run_dir / "core.sock", "/service/method")
    async with serve(run_dir, mute):
        work = asyncio.create_task(run(client, [remove("a")]))
        await eventually(lambda: client._connections, "it connects")
        await client.aclose()
        [failure] = await work
        assert failure is not None
        assert "closed" in failure.text
