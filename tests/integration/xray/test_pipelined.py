"""The fast lane against the real core, and against a scripted peer for what that core does not do when asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import ErrorKind
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.accounts import Account, user_message
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.transport import frames, http2
from pgnode.xray.transport.http2 import Failure
from pgnode.xray.transport.pipelined import NOT_ANSWERED, NOT_BEGUN, PipelinedGrpcClient
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore, api_part
from tests.support.polling import eventually
from tests.support.processes import is_stopped
from tests.unit.xray.transport.http2_peer import Peer

METHOD = "/xray.app.proxyman.command.HandlerService/AlterInbound"


def _add(name: str, padding: int = 0) -> AlterOperation:
    return AlterOperation("in", name, user_message(name, Account("trojan", name + "x" * padding)))


def _remove(name: str) -> AlterOperation:
    return AlterOperation("in", name)


def _config(run_dir: Path) -> str:
    document = make_config([make_inbound("in", "trojan")])
    return json.dumps(document | api_part(run_dir))


@pytest.fixture
async def lane(run_dir: Path) -> AsyncIterator[PipelinedGrpcClient]:
    client = PipelinedGrpcClient(run_dir / "core.sock", METHOD)
    yield client
    await client.aclose()


async def _run(
    lane: PipelinedGrpcClient, operations: list[AlterOperation], seconds: float = DEADLINE_SECONDS
) -> list[Failure | None]:
    return await lane.run(len(operations), lambda index: operations[index].request(), seconds)


# --- the real core


async def test_large_requests_keep_to_flow_control(
    run_dir: Path, start_core: StartCore, lane: PipelinedGrpcClient
) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    operations = [_add(f"u{number}@x", 100_000 if number % 3 else number) for number in range(60)]
    assert await _run(lane, operations) == [None] * 60
    async with CoreApi(run_dir / "core.sock") as api:
        assert await api.users.inbound_user_count("in", DEADLINE_SECONDS) == 60
    # More than the core takes at once: its refusal comes while the request is still being sent.
    [failure] = await _run(lane, [_add("large@x", 5_000_000)])
    assert failure is not None
    assert "larger than max" in failure.text
    assert await _run(lane, [_remove(f"u{number}@x") for number in range(60)]) == [None] * 60
    assert lane.connections_made == 1


async def test_errors_in_the_middle_have_the_texts_of_the_core(
    run_dir: Path, start_core: StartCore, lane: PipelinedGrpcClient
) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    names = [f"u{number}@x" for number in range(300)]
    assert await _run(lane, [_add(name) for name in names]) == [None] * 300
    mixed = [_add(name) if number % 2 else _remove(name) for number, name in enumerate(names)]
    results = await _run(lane, mixed)
    for number, (name, failure) in enumerate(zip(names, results, strict=True)):
        assert failure == (Failure(2, f"proxy/trojan: User {name} already exists.") if number % 2 else None)
    # A text that the core has to escape.
    [failure] = await _run(lane, [_remove("ünknown user%@x")])
    assert failure == Failure(2, "proxy/trojan: User ünknown user%@x not found.")


async def test_a_new_connection_when_stream_ids_run_out(run_dir: Path, start_core: StartCore) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    lane = PipelinedGrpcClient(run_dir / "core.sock", METHOD, last_stream_id=99)
    assert await _run(lane, [_add(f"u{number}@x") for number in range(500)]) == [None] * 500
    assert lane.connections_made == 10
    await lane.aclose()
    [failure] = await _run(lane, [_add("late@x")])
    assert failure is not None
    assert "closed" in failure.text


async def test_a_core_that_is_killed_in_the_middle(run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    operations = [_add(f"u{number}@x") for number in range(30_000)]
    async with CoreApi(run_dir / "core.sock") as api:
        work = asyncio.create_task(api.users.alter_many(operations, DEADLINE_SECONDS))

        async def begun() -> bool:
            return await api.users.inbound_user_count("in", DEADLINE_SECONDS) > 100

        await eventually(begun, "the first hundred users")
        running.send_signal(signal.SIGKILL)
        results = await work
        assert {error.kind for error in results if error is not None} == {ErrorKind.UNAVAILABLE}
        assert results.count(None) >= 100
        [late] = await api.users.alter_many(operations[:1], DEADLINE_SECONDS)
        assert late is not None
        assert late.kind is ErrorKind.UNAVAILABLE


async def test_a_core_that_hangs(run_dir: Path, start_core: StartCore, lane: PipelinedGrpcClient) -> None:
    running = await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    assert await _run(lane, [_add("first@x")]) == [None]
    running.send_signal(signal.SIGSTOP)
    await eventually(lambda: is_stopped(running.pid), "the core has stopped")
    results = await _run(lane, [_add(f"u{number}@x") for number in range(1000)], 0.3)
    assert set(results) == {NOT_ANSWERED, NOT_BEGUN}
    # Another connection is tried: the socket takes it, but nobody answers.
    assert await _run(lane, [_add("more@x")], 0.3) == [NOT_BEGUN]
    running.send_signal(signal.SIGCONT)
    assert await _run(lane, [_add("last@x")]) == [None]


async def test_no_core(lane: PipelinedGrpcClient) -> None:
    [failure] = await _run(lane, [_add("a@x")])
    assert failure is not None
    assert failure.code == http2.GRPC_UNAVAILABLE
    assert failure.text.startswith("the core's API cannot be reached: ")
    assert await _run(lane, []) == []
    assert await _run(lane, [_add("a@x")], 0.0) == [NOT_BEGUN]


async def test_followers_come_after(run_dir: Path, start_core: StartCore, lane: PipelinedGrpcClient) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    operations = [_add("a@x"), _remove("a@x"), _add("a@x"), _remove("a@x"), _remove("a@x"), _add("a@x")]
    followers = {number: number + 1 for number in range(5)}
    results = await lane.run(6, lambda index: operations[index].request(), DEADLINE_SECONDS, followers)
    assert results == [None, None, None, None, Failure(2, "proxy/trojan: User a@x not found."), None]


async def test_a_message_that_cannot_be_made(run_dir: Path, start_core: StartCore, lane: PipelinedGrpcClient) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    with pytest.raises(UnicodeEncodeError):
        await _run(lane, [_add("a@x"), _remove("\ud800")])
    assert await _run(lane, [_add("b@x")]) == [None]


# --- a scripted peer


Script = Callable[[Peer, int], None]


@contextlib.asynccontextmanager
async def _peer(run_dir: Path, script: Script) -> AsyncIterator[list[Peer]]:
    """A server on the core's socket; ``script(peer, number of the connection)`` is called whenever bytes came in."""
    peers: list[Peer] = []
    faults: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        except BaseException as error:
            faults.append(error)
            raise
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, run_dir / "core.sock")
    try:
        yield peers
    finally:
        server.close()
    assert not faults


def _answer_all(peer: Peer, _number: int = 0) -> None:
    for stream_id, call in list(peer.calls.items()):
        if call.whole and stream_id not in _answered(peer):
            _answered(peer).add(stream_id)
            peer.answer(stream_id)


def _answered(peer: Peer) -> set[int]:
    found: set[int] = peer.__dict__.setdefault("answered", set())
    return found


async def test_goodbye_in_the_middle(run_dir: Path, lane: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        if number > 1:
            _answer_all(peer)
        elif len(peer.calls) == 50:
            # The first ten are answered, the next ten are looked at and answered late, the others not looked at.
            for stream_id in range(1, 20, 2):
                peer.answer(stream_id)
            peer.say_goodbye(39)
            for stream_id in range(21, 40, 2):
                peer.answer(stream_id, 2, "late")

    async with _peer(run_dir, script) as peers:
        results = await _run(lane, [_remove(f"{number}") for number in range(50)])
        assert results == [None] * 10 + [Failure(2, "late")] * 10 + [None] * 30
        assert [len(peer.calls) for peer in peers] == [50, 30]


async def test_goodbye_to_every_connection(run_dir: Path, lane: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.say_goodbye(0)

    async with _peer(run_dir, script):
        [failure] = await _run(lane, [_remove("a")])
        assert failure is not None
        assert failure.code == http2.GRPC_UNAVAILABLE


async def test_refused_calls_are_sent_again_but_not_for_ever(run_dir: Path, lane: PipelinedGrpcClient) -> None:
    refused: set[int] = set()

    def script(peer: Peer, number: int) -> None:
        for stream_id, call in list(peer.calls.items()):
            if call.whole and stream_id not in _answered(peer):
                _answered(peer).add(stream_id)
                if len(refused) < limit:
                    refused.add(stream_id)
                    peer.reset(stream_id, frames.REFUSED_STREAM)
                else:
                    peer.answer(stream_id)

    async with _peer(run_dir, script):
        limit = 2
        assert await _run(lane, [_remove("a"), _remove("b")]) == [None, None]
        limit = 1_000_000
        [failure] = await _run(lane, [_remove("a")])
        assert failure is not None
        assert failure.code == http2.GRPC_UNAVAILABLE


async def test_pings_are_answered_and_cancelled_callers_cancel(run_dir: Path, lane: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        if len(peer.calls) == 1 and not peer.pings_answered:
            peer.send(frames.frame(frames.PING, 0, 0, b"are you?"))
        if len(peer.calls) > 1:
            _answer_all(peer)

    async with _peer(run_dir, script) as peers:
        caller = asyncio.create_task(_run(lane, [_remove("a")]))

        async def answered() -> bool:
            return bool(peers) and peers[0].pings_answered == [b"are you?"]

        await eventually(answered, "the answer to the ping")
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

        async def cancelled() -> bool:
            return peers[0].calls[1].cancelled

        await eventually(cancelled, "the call is reset")
        assert await _run(lane, [_remove("b")]) == [None]
        assert len(peers) == 1


async def test_a_peer_that_speaks_something_else(run_dir: Path, lane: PipelinedGrpcClient) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with _peer(run_dir, script) as peers:
        [failure] = await _run(lane, [_remove("a")])
        assert failure is not None
        assert "no HTTP/2 that is understood" in failure.text

        async def told() -> bool:
            return peers[0].goaway is not None

        await eventually(told, "the reason in a GOAWAY")
