"""A worker asks the supervisor over a real Valkey: every caller gets its own answer, also when Valkey dies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Command, Kind, Reply, parse_settlement
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import BLOB_BYTES, GROUP, Keys
from pgnode.bus.server import CommandServer
from pgnode.errors import BusUnavailableError, DeadlineExceededError, NodeError, UsersRefusedError
from pgnode.os_support.aio import end_tasks
from tests.support.polling import eventually, next_turn, pause
from tests.support.valkey import TestValkey, running_valkey

KEYS = Keys("test")


@pytest.fixture
async def valkey() -> AsyncIterator[TestValkey]:
    async with running_valkey() as server:
        yield server


@contextlib.asynccontextmanager
async def answering(url: str, answer: Callable[[Command], Reply]) -> AsyncIterator[list[list[Command]]]:
    """A supervisor that answers every command; gives the groups as they were taken."""
    server, redis, groups = CommandServer(url, KEYS), connect(url), list[list[Command]]()

    async def serve() -> None:
        while True:
            try:
                group = await server.take()
                if group:
                    groups.append(group)
                    pipe = redis.pipeline(transaction=True)
                    server.answer(pipe, [(command, answer(command)) for command in group])
                    await pipe.execute()
                    server.release(group)
            except BUS_ERRORS:
                server.lost_connection()
                await pause()

    task = asyncio.create_task(serve())
    try:
        yield groups
    finally:
        await end_tasks([task])
        await server.close()
        await redis.aclose()


@contextlib.asynccontextmanager
async def client_of(url: str, name: str = "w1") -> AsyncIterator[CommandClient]:
    client = CommandClient(url, KEYS, name)
    client.start()
    try:
        yield client
    finally:
        await client.close()


def echo(command: Command) -> Reply:
    return Reply(body=command.body)


async def test_every_caller_gets_its_own_answer_and_nothing_is_left(valkey: TestValkey) -> None:
    async with answering(valkey.url, echo) as groups, client_of(valkey.url) as one, client_of(valkey.url, "w2") as two:
        bodies = [str(number).encode() for number in range(300)]
        calls = [(one if number % 2 else two).call(Kind.SYNC_USER, body, 5) for number, body in enumerate(bodies)]
        assert await asyncio.gather(*calls) == bodies
        assert sum(map(len, groups)) == 300
        assert len(groups) < 200, "commands travel in groups"
    redis = connect(valkey.url)
    assert await redis.xlen(KEYS.commands) == 0
    pending = await redis.xpending(KEYS.commands, GROUP)
    assert pending["pending"] == 0
    assert 0 < await redis.ttl(KEYS.replies("w1")) <= 120
    await redis.aclose()


async def test_large_bodies_go_by_a_key_of_their_own(valkey: TestValkey) -> None:
    body = bytes(BLOB_BYTES + 1)
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USERS, body, 5) == body


async def test_errors_cross_the_bus_as_they_are(valkey: TestValkey) -> None:
    refuse = Reply(error=UsersRefusedError("failed to update users: a: because"))
    async with answering(valkey.url, lambda _: refuse), client_of(valkey.url) as client:
        with pytest.raises(UsersRefusedError, match="failed to update users: a: because"):
            await client.call(Kind.SYNC_USER, b"", 5)


async def test_nobody_answers(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        with pytest.raises(DeadlineExceededError):
            await client.call(Kind.STOP, b"", 0.2)


async def test_a_dead_store_is_told_within_three_seconds_and_comes_back(valkey: TestValkey) -> None:
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USER, b"before", 5) == b"before"
        valkey.kill()
        began = time.monotonic()
        with pytest.raises(BusUnavailableError):
            await client.call(Kind.SYNC_USER, b"away", 30)
        assert time.monotonic() - began < 3
        await valkey.start()

        async def works() -> bool:
            return await client.call(Kind.SYNC_USER, b"back", 5) == b"back"

        assert await eventually(works, "commands work again", errors=(BusUnavailableError,))


async def test_a_store_that_comes_back_empty_gets_its_group_again(valkey: TestValkey) -> None:
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        await client.call(Kind.SYNC_USER, b"before", 5)
        valkey.kill()
        valkey.empty()
        await valkey.start()

        async def works() -> bool:
            return await client.call(Kind.SYNC_USER, b"back", 5) == b"back"

        assert await eventually(works, "commands work again", 15, errors=(BusUnavailableError, DeadlineExceededError))


async def test_callers_waiting_when_the_store_dies_are_told(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        call = asyncio.create_task(client.call(Kind.SYNC_USER, b"", 30))
        redis = connect(valkey.url)
        await eventually(lambda: redis.xlen(KEYS.commands), "the command is on its way")
        await redis.aclose()
        valkey.kill()
        began = time.monotonic()
        with pytest.raises(BusUnavailableError):
            await call
        assert time.monotonic() - began < 3


async def test_single_changes_gather_while_others_are_under_way(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        server, redis = CommandServer(valkey.url, KEYS), connect(valkey.url)
        calls = [asyncio.create_task(client.call(Kind.SYNC_USER, b"first", 10))]
        [first] = await eventually(server.take, "the first one alone")
        calls += [asyncio.create_task(client.call(Kind.SYNC_USER, b"%d" % number, 10)) for number in range(20)]
        # Anything else waits for nobody, and takes along what came before it.
        calls.append(asyncio.create_task(client.call(Kind.STOP, b"", 10)))
        gathered = await eventually(server.take, "the others")
        [stop] = gathered[20:] or await eventually(server.take, "the last one")
        del gathered[20:]
        assert [command.body for command in gathered] == [b"%d" % number for number in range(20)]
        assert stop.kind is Kind.STOP
        assert len({command.entry_id for command in gathered}) == 1
        assert stop.entry_id not in {command.entry_id for command in gathered}
        taken = [first, *gathered, stop]
        pipe = redis.pipeline(transaction=True)
        server.answer(pipe, [(command, Reply(body=command.body)) for command in taken])
        await pipe.execute()
        assert await asyncio.gather(*calls) == [command.body for command in taken]
        await server.close()
        await redis.aclose()


async def test_a_body_of_its_own_goes_when_it_was_answered(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    async with answering(valkey.url, lambda _: Reply()), client_of(valkey.url) as client:
        await client.call(Kind.SYNC_USERS, bytes(BLOB_BYTES + 1), 5)
        assert [key async for key in redis.scan_iter("test:blob:*")] == []
    await redis.aclose()


async def test_callers_that_were_answered_together_go_together_again(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        server, redis = CommandServer(valkey.url, KEYS), connect(valkey.url)

        async def answer(commands: list[Command]) -> None:
            pipe = redis.pipeline(transaction=True)
            server.answer(pipe, [(command, Reply(body=command.body)) for command in commands])
            await pipe.execute()
            server.release(commands)

        async def ask(number: int, times: int) -> None:
            for _ in range(times):
                await client.call(Kind.SYNC_USER, b"%d" % number, 10)
                for _ in range(number):  # one after the other, as their connections are read
                    await next_turn()

        calls = [asyncio.create_task(ask(number, 2)) for number in range(8)]
        groups, left = [], 16
        while left:
            groups.append(await server.take())
            await answer(groups[-1])
            left -= len(groups[-1])
        await asyncio.gather(*calls)
        assert len(groups) <= 4, "the quickest went alone"
        # One alone waits for the others no longer than a moment.
        calls = [asyncio.create_task(ask(9, 1))]
        alone = await server.take()
        assert [command.body for command in alone] == [b"9"]
        await answer(alone)
        await asyncio.gather(*calls)
        await server.close()
        await redis.aclose()


async def test_what_is_on_loan_is_settled_once(valkey: TestValkey) -> None:
    lent = Reply(body=b"figures", lent=0)
    answers = {Kind.TAKE_STATS: lent, Kind.SETTLE: Reply()}
    async with answering(valkey.url, lambda command: answers[command.kind]) as groups, client_of(valkey.url) as client:
        data, settle = await client.lend(Kind.TAKE_STATS, b"", 5)
        assert data == b"figures"
        settle(True)
        settle(False)

        def settled() -> list[Command]:
            return [command for group in groups for command in group if command.kind is Kind.SETTLE]

        await eventually(settled, "it is told")
        [take] = [command for group in groups for command in group if command.kind is Kind.TAKE_STATS]
        assert [parse_settlement(command.body) for command in settled()] == [(take.id, True)]


async def test_what_is_not_on_loan_needs_no_settlement(valkey: TestValkey) -> None:
    async with answering(valkey.url, lambda _: Reply(body=b"nothing owed")) as groups, client_of(valkey.url) as client:
        data, settle = await client.lend(Kind.TAKE_STATS, b"", 5)
        settle(True)
        assert data == b"nothing owed"
        await client.call(Kind.STOP, b"", 5)
        assert [command.kind for group in groups for command in group] == [Kind.TAKE_STATS, Kind.STOP]
        assert repr(client) == "CommandClient(w1, 0 waiting)"


@pytest.mark.parametrize(
    ("error", "given_back"), [(UsersRefusedError("no"), False), (BusUnavailableError("away"), True)]
)
async def test_a_loan_that_may_have_been_made_is_given_back(
    valkey: TestValkey, error: NodeError, given_back: bool
) -> None:
    answers = {Kind.TAKE_STATS: Reply(error=error), Kind.SETTLE: Reply(), Kind.STOP: Reply()}
    async with answering(valkey.url, lambda command: answers[command.kind]) as groups, client_of(valkey.url) as client:
        with pytest.raises(type(error)):
            await client.lend(Kind.TAKE_STATS, b"", 5)
        call = asyncio.create_task(client.lend(Kind.TAKE_STATS, b"", 5))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        def settled() -> list[tuple[str, bool]]:
            commands = [command for group in groups for command in group if command.kind is Kind.SETTLE]
            return [parse_settlement(command.body) for command in commands]

        count = 1 + given_back
        await eventually(lambda: len(settled()) == count, "given back")
        assert {delivered for _, delivered in settled()} == {False}


@pytest.mark.parametrize("kept", [True, False])
async def test_a_large_answer_on_loan_comes_in_parts_or_is_given_back(valkey: TestValkey, kept: bool) -> None:
    redis = connect(valkey.url)
    lent = Reply(lent=2, parts=[b"one", b"two"] if kept else [b"one"])
    answers = {Kind.TAKE_STATS: lent, Kind.SETTLE: Reply()}
    async with answering(valkey.url, lambda command: answers[command.kind]) as groups, client_of(valkey.url) as client:
        if kept:
            data, settle = await client.lend(Kind.TAKE_STATS, b"", 5)
            assert data == b"onetwo"
            settle(True)
        else:
            with pytest.raises(BusUnavailableError, match="has lost this answer"):
                await client.lend(Kind.TAKE_STATS, b"", 5)

        def settled() -> list[bool]:
            commands = [command for group in groups for command in group if command.kind is Kind.SETTLE]
            return [parse_settlement(command.body)[1] for command in commands]

        await eventually(lambda: settled() == [kept], "it is settled")
        assert [key async for key in redis.scan_iter("test:loan:*")] == []
    await redis.aclose()
