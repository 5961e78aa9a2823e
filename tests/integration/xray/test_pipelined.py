"""The pipelined client against the real core."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import ErrorKind
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.accounts import Account, user_message
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.transport.outcome import Failure
from pgnode.xray.transport.pipelined import MAX_OPEN, NOT_ANSWERED, NOT_BEGUN, PipelinedGrpcClient
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore, api_part
from tests.support.polling import eventually
from tests.support.processes import stop

METHOD = "/xray.app.proxyman.command.HandlerService/AlterInbound"


def _add(name: str, padding: int = 0) -> AlterOperation:
    return AlterOperation("in", name, user_message(name, Account("trojan", name + "x" * padding)))


def _remove(name: str) -> AlterOperation:
    return AlterOperation("in", name)


def _config(run_dir: Path) -> str:
    document = make_config([make_inbound("in", "trojan")])
    return json.dumps(document | api_part(run_dir))


@pytest.fixture
async def client(run_dir: Path) -> AsyncIterator[PipelinedGrpcClient]:
    client = PipelinedGrpcClient(run_dir / "core.sock", METHOD)
    yield client
    await client.aclose()


async def _run(
    client: PipelinedGrpcClient, operations: list[AlterOperation], seconds: float = DEADLINE_SECONDS
) -> list[Failure | None]:
    return await client.run(len(operations), lambda index: operations[index].request(), seconds)


async def test_large_requests_keep_to_flow_control(
    run_dir: Path, start_core: StartCore, client: PipelinedGrpcClient
) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    operations = [_add(f"u{number}@x", 100_000 if number % 3 else number) for number in range(60)]
    assert await _run(client, operations) == [None] * 60
    async with CoreApi(run_dir / "core.sock") as api:
        assert await api.users.inbound_user_count("in", DEADLINE_SECONDS) == 60
    # More than the core takes at once: its refusal comes while the request is still being sent.
    [failure] = await _run(client, [_add("large@x", 5_000_000)])
    assert failure is not None
    assert "larger than max" in failure.text
    assert await _run(client, [_remove(f"u{number}@x") for number in range(60)]) == [None] * 60
    assert client.connections_made == 1


async def test_errors_in_the_middle_have_the_texts_of_the_core(
    run_dir: Path, start_core: StartCore, client: PipelinedGrpcClient
) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    names = [f"u{number}@x" for number in range(300)]
    assert await _run(client, [_add(name) for name in names]) == [None] * 300
    mixed = [_add(name) if number % 2 else _remove(name) for number, name in enumerate(names)]
    results = await _run(client, mixed)
    for number, (name, failure) in enumerate(zip(names, results, strict=True)):
        assert failure == (Failure(2, f"proxy/trojan: User {name} already exists.") if number % 2 else None)
    # A text that the core has to escape.
    [failure] = await _run(client, [_remove("ünknown user%@x")])
    assert failure == Failure(2, "proxy/trojan: User ünknown user%@x not found.")


async def test_a_new_connection_when_stream_ids_run_out(run_dir: Path, start_core: StartCore) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    client = PipelinedGrpcClient(run_dir / "core.sock", METHOD, last_stream_id=99)
    assert await _run(client, [_add(f"u{number}@x") for number in range(500)]) == [None] * 500
    assert client.connections_made == 10
    await client.aclose()
    [failure] = await _run(client, [_add("late@x")])
    assert failure is not None
    assert "closed" in failure.text


async def test_a_core_that_is_killed_in_the_middle(run_dir: Path, start_core: StartCore) -> None:
    running = await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    operations = [_add(f"u{number}@x") for number in range(30_000)]
    async with CoreApi(run_dir / "core.sock") as api:
        work = asyncio.create_task(api.users.alter_many(operations, DEADLINE_SECONDS))

        async def begun() -> bool:
            return await api.users.inbound_user_count("in", DEADLINE_SECONDS) > 100 + MAX_OPEN

        await eventually(begun, "the first hundred users are there, and answered")
        running.send_signal(signal.SIGKILL)
        results = await work
        assert {error.kind for error in results if error is not None} == {ErrorKind.UNAVAILABLE}
        assert results.count(None) >= 100
        [late] = await api.users.alter_many(operations[:1], DEADLINE_SECONDS)
        assert late is not None
        assert late.kind is ErrorKind.UNAVAILABLE


#: Long enough for a process that gets little of the machine to send something before it gives up.
HANG_SECONDS = 5.0


async def test_a_core_that_hangs(run_dir: Path, start_core: StartCore, client: PipelinedGrpcClient) -> None:
    running = await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    assert await _run(client, [_add("first@x")]) == [None]
    await stop(running.pid)
    results = await _run(client, [_add(f"u{number}@x") for number in range(1000)], HANG_SECONDS)
    assert set(results) == {NOT_ANSWERED, NOT_BEGUN}
    # Another connection is tried: the socket takes it, but nobody answers.
    assert await _run(client, [_add("more@x")], 0.3) == [NOT_BEGUN]
    running.send_signal(signal.SIGCONT)
    assert await _run(client, [_add("last@x")]) == [None]


async def test_followers_come_after(run_dir: Path, start_core: StartCore, client: PipelinedGrpcClient) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    operations = [_add("a@x"), _remove("a@x"), _add("a@x"), _remove("a@x"), _remove("a@x"), _add("a@x")]
    followers = {number: number + 1 for number in range(5)}
    results = await client.run(6, lambda index: operations[index].request(), DEADLINE_SECONDS, followers)
    assert results == [None, None, None, None, Failure(2, "proxy/trojan: User a@x not found."), None]


async def test_a_message_that_cannot_be_made(run_dir: Path, start_core: StartCore, client: PipelinedGrpcClient) -> None:
    await start_core(EmbeddedCore(), _config(run_dir), run_dir)
    with pytest.raises(UnicodeEncodeError):
        await _run(client, [_add("a@x"), _remove("\ud800")])
    assert await _run(client, [_add("b@x")]) == [None]
