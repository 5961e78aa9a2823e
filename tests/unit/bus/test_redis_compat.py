"""What is used of redis-py beyond what it promises: it exists, and it works as relied on, with a real server."""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path
from unittest import mock

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from pgnode.bus import redis_compat
from pgnode.bus.redis_compat import LoggedInTransport, commands_of, log_in
from tests.support.polling import eventually
from tests.support.valkey import TestValkey


def pool(url: str) -> ConnectionPool:
    return ConnectionPool.from_url(url, protocol=2)


def test_versions_are_checked() -> None:
    with mock.patch("pgnode.dependencies.check") as asked:
        redis_compat.check()
    asked.assert_called_once_with("redis", "hiredis")


def test_every_private_member_that_is_used_has_a_test_here() -> None:
    tree = ast.parse(Path(redis_compat.__file__).read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    assert used == {"_reader", "_writer"}
    for kind in (Connection, UnixDomainSocketConnection):
        assert {"_reader", "_writer"} <= set(vars(kind())) | set(AbstractConnection.__slots__)


def test_the_pools_way_to_make_a_connection() -> None:
    assert str(inspect.signature(ConnectionPool.make_connection)) == "(self)"
    assert inspect.iscoroutinefunction(AbstractConnection.connect)
    assert inspect.iscoroutinefunction(AbstractConnection.disconnect)
    assert "nowait" in inspect.signature(AbstractConnection.disconnect).parameters


def test_a_pipeline_keeps_its_commands() -> None:
    pipe: Pipeline = Redis().pipeline(transaction=True)
    pipe.hset("h", mapping={"a": b"1", "b": 2})
    pipe.xadd("s", {"f": b"v"})
    pipe.publish("c", b"m")
    assert commands_of(pipe) == [
        ("HSET", "h", "a", b"1", "b", 2),
        ("XADD", "s", "*", "f", b"v"),
        ("PUBLISH", "c", b"m"),
    ]
    assert len(commands_of(pipe)) == 3, "it keeps them"
    assert commands_of(Redis().pipeline()) == []


class Collecting(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.came = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()


async def test_a_connection_is_taken_over_when_it_is_logged_in(valkey: TestValkey) -> None:
    admin: Redis = Redis.from_url(valkey.url)
    await admin.acl_setuser("node", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
    made: list[AbstractConnection] = []
    connections = pool(f"{valkey.url}?username=node&password=secret&db=3")
    real = connections.make_connection

    def make_connection() -> AbstractConnection:
        made.append(real())  # type: ignore[no-untyped-call]
        return made[-1]

    with mock.patch.object(connections, "make_connection", make_connection):
        found = await log_in(connections)
    # redis-py's object has nothing left that it could close or read from.
    [connection] = made
    assert (connection._reader, connection._writer) == (None, None)
    assert not connection.is_connected
    await connection.disconnect(nowait=True)
    del connection
    made.clear()
    protocol = Collecting()
    found.transport.set_protocol(protocol)
    found.transport.write(b"*2\r\n$3\r\nACL\r\n$6\r\nWHOAMI\r\n")
    async with asyncio.timeout(5):
        await protocol.came.wait()
    assert protocol.data == b"$4\r\nnode\r\n", "and nothing of the login is left to read"
    found.transport.abort()
    await admin.aclose()


async def test_a_refused_login_leaves_no_connection(valkey: TestValkey) -> None:
    admin: Redis = Redis.from_url(valkey.url)
    before = len(await admin.client_list())
    with pytest.raises((AuthenticationError, RedisConnectionError)):
        await log_in(pool(f"{valkey.url}?username=nobody&password=wrong"))

    async def gone() -> bool:
        return len(await admin.client_list()) == before

    # The server may hear of the end after what others ask it.
    await eventually(gone, "the connection is gone")
    await admin.aclose()


async def test_nobody_listens(valkey: TestValkey) -> None:
    valkey.kill()
    with pytest.raises(RedisConnectionError):
        await log_in(pool(valkey.url))


def test_a_connection_that_ended_at_once() -> None:
    connection = Connection()
    with pytest.raises(ConnectionResetError):
        LoggedInTransport(connection)
