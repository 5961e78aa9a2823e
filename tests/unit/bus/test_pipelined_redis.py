"""The lean connection to Redis, against a real Valkey: order, errors, transactions, time limits, lost connections, TLS, login."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import hiredis
import pytest
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.pipelined_redis import LARGE_BYTES, PipelinedRedis, entries_of, pack
from pgnode.bus.redis_compat import LoggedInTransport, log_in
from pgnode.os_support.aio import end_tasks
from tests.support.certificates import make_certificate
from tests.support.polling import eventually, next_turn
from tests.support.valkey import TestValkey


@contextlib.asynccontextmanager
async def link_to(url: str, **more: float) -> AsyncIterator[PipelinedRedis]:
    link = PipelinedRedis(url, **more)
    try:
        yield link
    finally:
        link.drop()


async def test_replies_go_to_whoever_asked(valkey: TestValkey) -> None:
    async with link_to(valkey.url) as link:
        calls = [link.execute("ECHO", str(number)) for number in range(200)]
        assert await asyncio.gather(*calls) == [str(number).encode() for number in range(200)]
        assert await link.pipeline([("SET", "a", b"\x00" * 1_000_000), ("STRLEN", "a"), ("GET", "b")]) == [
            b"OK",
            1_000_000,
            None,
        ]
        assert await link.pipeline([]) == []


@pytest.mark.parametrize("size", [LARGE_BYTES - 1, LARGE_BYTES, 3 * LARGE_BYTES])
def test_large_arguments_are_sent_as_they_are(size: int) -> None:
    body = b"\r\n" * (size // 2) + b"x" * (size % 2)
    args = ("SET", "key", body, "EX", 900)
    parts = pack(args)
    assert b"".join(parts) == hiredis.pack_command(args)  # type: ignore[arg-type]  # as its own types have it
    assert any(part is body for part in parts) == (size >= LARGE_BYTES)


async def test_large_and_small_ones_of_several_callers_keep_their_order(valkey: TestValkey) -> None:
    bodies = [bytes([number]) * (LARGE_BYTES * number + number) for number in range(6)]
    async with link_to(valkey.url) as link:
        calls = [
            link.pipeline([("SET", f"k{number}", body), ("ECHO", str(number)), ("GET", f"k{number}")])
            for number, body in enumerate(bodies)
        ]
        answers = await asyncio.gather(*calls)
    assert answers == [[b"OK", str(number).encode(), body] for number, body in enumerate(bodies)]


async def test_errors_are_raised_after_all_replies_have_come(valkey: TestValkey) -> None:
    async with link_to(valkey.url) as link:
        with pytest.raises(ResponseError, match="wrong number of arguments"):
            await link.pipeline([("SET", "a", 1), ("GET",), ("SET", "b", 2)])
        assert await link.pipeline([("GET", "a"), ("GET", "b")]) == [b"1", b"2"]


async def test_transactions(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    async with link_to(valkey.url) as link:
        pipe = redis.pipeline(transaction=True)
        pipe.hset("h", mapping={"a": b"1", "b": 2})
        pipe.xadd("s", {"f": b"v"}, id="1-1")
        pipe.hget("h", "b")
        assert await link.transaction(pipe) == [2, b"1-1", b"2"]
        assert entries_of(await link.execute("XREAD", "STREAMS", "s", "0")) == [("1-1", {b"f": b"v"})]
        assert entries_of(await link.execute("XREAD", "STREAMS", "s", "1-1")) == []
        assert await link.transaction(redis.pipeline(transaction=True)) == []
        wrong = redis.pipeline(transaction=True)
        wrong.hset("h", "c", "3")
        wrong.lpush("h", "not a list")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await link.transaction(wrong)
        refused = redis.pipeline(transaction=True)
        refused.hset("h", "d", "4")
        refused.execute_command("NOSUCH")
        with pytest.raises(ResponseError):
            await link.transaction(refused)
        assert await link.execute("HEXISTS", "h", "d") == 0
    await redis.aclose()


async def test_a_hanging_store_costs_the_connection_and_nothing_else(valkey: TestValkey) -> None:
    async with link_to(valkey.url, timeout_seconds=0.3) as link:
        waiting = asyncio.create_task(link.execute("BLPOP", "nothing", 0))
        with pytest.raises(TimeoutError):
            await waiting
        assert await link.execute("PING") == b"PONG"
        # A caller that gives up leaves the order of replies alone.
        given_up = asyncio.create_task(link.execute("ECHO", "nobody"))
        await next_turn()
        given_up.cancel()
        assert await link.execute("ECHO", "next") == b"next"


class SlowLogin:
    """A login that takes longer than a call may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.ended = 0
        self.go_on = asyncio.Event()
        monkeypatch.setattr("pgnode.bus.pipelined_redis.log_in", self._log_in)

    async def _log_in(self, pool: ConnectionPool) -> LoggedInTransport:
        self.begun += 1
        try:
            await self.go_on.wait()
            return await log_in(pool)
        finally:
            self.ended += 1


async def test_a_connection_is_made_to_its_end_whoever_gave_up(
    valkey: TestValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = SlowLogin(monkeypatch)
    async with link_to(valkey.url, timeout_seconds=0.05) as link:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await link.execute("PING")
        assert (login.begun, login.ended) == (1, 0)
        login.go_on.set()
        await eventually(lambda: login.ended == 1 and "open" in repr(link), "it is made")
        assert await eventually(lambda: link.execute("PING"), "it is used", errors=(TimeoutError,)) == b"PONG"


async def test_one_that_is_being_made_ends_with_its_client(valkey: TestValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    login = SlowLogin(monkeypatch)
    async with link_to(valkey.url) as link:
        calling = asyncio.create_task(link.execute("PING"))
        await eventually(lambda: login.begun == 1, "it is being made")
        link.drop()
        with pytest.raises(RedisConnectionError, match="was closed"):
            await calling
        assert login.ended == 1


async def test_a_lost_connection_fails_its_callers_and_is_made_anew(valkey: TestValkey) -> None:
    async with link_to(valkey.url) as link:
        assert await link.execute("PING") == b"PONG"
        waiting = asyncio.create_task(link.execute("BLPOP", "nothing", 0))
        await next_turn()
        valkey.kill()
        with pytest.raises(RedisConnectionError):
            await waiting
        with pytest.raises(BUS_ERRORS):
            await link.execute("PING")
        await valkey.start()
        assert await eventually(lambda: link.execute("PING"), "the store is back", errors=BUS_ERRORS) == b"PONG"


async def test_login_and_number_of_the_database(valkey: TestValkey) -> None:
    async with link_to(valkey.url) as link:
        await link.pipeline(
            [("SET", "where", "zero"), ("ACL", "SETUSER", "node", "on", ">secret", "+@all", "~*", "&*")]
        )
    mark = "&" if "?" in valkey.url else "?"
    async with link_to(f"{valkey.url}{mark}db=2&username=node&password=secret") as link:
        assert await link.execute("ACL", "WHOAMI") == b"node"
        assert await link.execute("GET", "where") is None
    async with link_to(f"{valkey.url}{mark}username=node&password=wrong") as link:
        with pytest.raises(BUS_ERRORS):
            await link.execute("PING")


async def test_over_tls(valkey: TestValkey, tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path, ["localhost"], ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    tasks: list[asyncio.Task[None]] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(valkey.socket))
        tasks.extend(asyncio.create_task(carry(*ends)) for ends in ((reader, inner_writer), (inner_reader, writer)))

    # The Valkey of the tests has no TLS of its own.
    async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as server:
        url = f"rediss://localhost:{server.sockets[0].getsockname()[1]}"
        async with link_to(f"{url}?ssl_ca_certs={cert_file}") as link:
            large = b"x" * 1_000_000
            replies = await asyncio.gather(
                link.pipeline([("SET", "large", large), ("GET", "large")]),
                *(link.execute("ECHO", str(number)) for number in range(100)),
            )
            assert replies[0] == [b"OK", large]
            assert replies[1:] == [str(number).encode() for number in range(100)]
            link.drop()
            assert await link.execute("STRLEN", "large") == len(large)
        async with link_to(url) as distrustful:
            with pytest.raises(BUS_ERRORS, match="certificate verify failed"):
                await distrustful.execute("PING")
        await end_tasks(tasks)
