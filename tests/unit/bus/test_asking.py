"""One question to one server, over a connection of its own."""

from __future__ import annotations

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, ResponseError

from pgnode.bus.asking import ask
from tests.support.redis_servers import running_server


async def test_the_answer_and_no_connection_is_left() -> None:
    async with running_server() as server:
        client = server.client()
        host = ("127.0.0.1", server.port)
        assert await ask(Connection, {"protocol": 2}, host, ("ECHO", "x")) == b"x"
        with pytest.raises(ResponseError, match="unknown command"):
            await ask(Connection, {"protocol": 2}, host, ("NONSENSE",))
        assert len(await client.client_list()) == 1
        await client.aclose()
    with pytest.raises(RedisError):
        await ask(Connection, {"protocol": 2}, host, ("PING",))
