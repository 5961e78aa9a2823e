"""A worker asks the supervisor over a real Valkey: every caller gets its own answer, also when Valkey dies."""

from __future__ import annotations

import asyncio

import pytest

from pgnode.bus.client import LARGE_BYTES, CommandClient
from pgnode.bus.commands import Command, Kind, Reply, parse_settlement
from pgnode.bus.connection import connect
from pgnode.bus.keys import GROUP
from pgnode.errors import BusUnavailableError, DeadlineExceededError, NodeError, UsersRefusedError
from tests.support.bus_ends import KEYS, answering, client_of, echo
from tests.support.polling import eventually, next_turn
from tests.support.valkey import TestValkey


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


async def test_errors_cross_the_bus_as_they_are(valkey: TestValkey) -> None:
    refuse = Reply(error=UsersRefusedError("failed to update users: a: because"))
    async with answering(valkey.url, lambda _: refuse), client_of(valkey.url) as client:
        with pytest.raises(UsersRefusedError, match="failed to update users: a: because"):
            await client.call(Kind.SYNC_USER, b"", 5)


async def test_nobody_answers(valkey: TestValkey) -> None:
    async with client_of(valkey.url) as client:
        with pytest.raises(DeadlineExceededError):
            await client.call(Kind.STOP, b"", 0.05)


async def test_a_dead_store_is_told_and_comes_back(valkey: TestValkey) -> None:
    async with answering(valkey.url, echo), client_of(valkey.url) as client:
        assert await client.call(Kind.SYNC_USER, b"before", 5) == b"before"
        valkey.kill()
        with pytest.raises(BusUnavailableError):
            await client.call(Kind.SYNC_USER, b"away", 30)
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
        with pytest.raises(BusUnavailableError):
            await call


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
        await next_turn()
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


async def test_a_large_answer_that_is_on_no_loan_comes_in_parts_too(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    large = Reply(lent=2, parts=[b"one", b"two"])
    async with answering(valkey.url, lambda _: large) as groups, client_of(valkey.url) as client:
        assert await client.call(Kind.METRICS, b"", 5) == b"onetwo"
        assert [command.kind for group in groups for command in group] == [Kind.METRICS], "nothing is settled"
        assert [key async for key in redis.scan_iter("test:loan:*")] == []
    await redis.aclose()


async def test_the_end_of_a_call_with_a_large_message_is_told(valkey: TestValkey) -> None:
    told: list[bool] = []
    async with answering(valkey.url, lambda _: Reply()):
        client = CommandClient(valkey.url, KEYS, "w3", large_ended=lambda: told.append(True))
        client.start()
        try:
            await client.call(Kind.SYNC_USERS, bytes(LARGE_BYTES - 1), 20)
            assert not told
            await client.call(Kind.SYNC_USERS, bytes(LARGE_BYTES), 20)
            assert told == [True]
        finally:
            await client.close()


async def test_a_large_body_crosses_redis_once(valkey: TestValkey) -> None:
    body, redis = bytes(8 * 1024 * 1024), connect(valkey.url)

    async def crossed() -> tuple[int, int]:
        found = await redis.info("stats")
        return int(found["total_net_input_bytes"]), int(found["total_net_output_bytes"])

    try:
        async with answering(valkey.url, lambda _command: Reply()), client_of(valkey.url) as client:
            came_before, went_before = await crossed()
            assert await client.call(Kind.SYNC_USERS, body, 30) == b""
            came, went = await crossed()
        assert len(body) <= came - came_before < 1.1 * len(body), "to it once"
        assert len(body) <= went - went_before < 1.1 * len(body), "and from it once"
    finally:
        await redis.aclose()
