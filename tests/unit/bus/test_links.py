"""Connections: passwords from files, no word too many to Redis, and a server that has the keys no more is given up."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from pgnode.bus.asking import ask
from pgnode.bus.connection import connect, connections_to
from pgnode.bus.finding import Finder
from pgnode.bus.links import PasswordInFile, TcpLink, TlsLink, UnixLink, make_pool
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.settings.redis_address import Host, complete
from tests.support.polling import eventually
from tests.support.redis_servers import running_server


def test_the_kinds() -> None:
    kinds = {
        "redis://h": TcpLink,
        "rediss://h": TlsLink,
        "unix:///x": UnixLink,
        "redis+sentinel://h/m": TcpLink,
        "rediss+cluster://h": TlsLink,
    }
    for url, kind in kinds.items():
        assert make_pool(url, timeout_seconds=1).connection_class is kind


def test_sentinels_have_credentials_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, object]] = []
    monkeypatch.setattr(
        "pgnode.bus.links.sentinel_finder", lambda _hosts, _master, _kind, arguments: given.append(arguments)
    )
    url = complete("redis+sentinel://me:secret@h/m/3", {"sentinel_username": "s", "sentinel_password": "t"})
    arguments = make_pool(url, timeout_seconds=9).connection_kwargs
    assert (arguments["username"], arguments["password"], arguments["db"]) == ("me", "secret", 3)
    assert arguments["only_masters"]
    make_pool(complete("redis+sentinel://h/m", {"sentinel_password_file": "/s"}), timeout_seconds=9)
    assert [(one.get("username"), one.get("password"), one["socket_timeout"]) for one in given] == [
        ("s", "t", 2.0),
        (None, None, 2.0),
    ]
    assert "db" not in given[0]
    assert isinstance(given[1]["credential_provider"], PasswordInFile)


async def test_a_password_is_read_at_each_connection(tmp_path: Path) -> None:
    path = tmp_path / "password"
    async with running_server(options=["--requirepass", "one"]) as server:
        path.write_text("one\n")
        redis = connect(complete(server.url, {"password_file": str(path)}))
        assert await redis.ping()
        admin = server.client(password="one")
        await admin.config_set("requirepass", "two")
        await admin.aclose()
        path.write_text("two\n")
        await redis.connection_pool.disconnect()
        assert await redis.ping()
        path.unlink()
        await redis.connection_pool.disconnect()
        with pytest.raises(RedisConnectionError, match=f"no password for Redis in {path}: No such file"):
            await redis.ping()
        await redis.aclose()
    provider = PasswordInFile("me", path)
    assert repr(provider) == f"PasswordInFile({path})"
    path.write_text("two")
    assert provider.get_credentials() == ("me", "two")


async def test_nothing_but_the_login_is_said_to_begin_with() -> None:
    plain: dict[str, object] = {"protocol": 2, "driver_info": None}
    async with running_server() as server:
        host = ("127.0.0.1", server.port)
        await ask(Connection, plain, host, ("CONFIG", "RESETSTAT"))
        redis = connect(f"{server.url}?db=1")
        await redis.ping()
        await redis.aclose()
        said = (await ask(Connection, plain, host, ("INFO", "commandstats"))).decode().splitlines()
    used = {line.partition(":")[0] for line in said if line.startswith("cmdstat_")}
    assert used - {"cmdstat_config|resetstat"} == {"cmdstat_select", "cmdstat_ping"}


async def test_a_replica_is_given_up() -> None:
    async with running_server() as server:
        redis, piped = connect(server.url), PipelinedRedis(server.url)
        await redis.set("a", 1)
        await piped.execute("SET", "a", 1)
        admin = server.client()
        before = len(await admin.client_list())
        await admin.execute_command("REPLICAOF", "127.0.0.1", "9")  # type: ignore[no-untyped-call]
        with pytest.raises(RedisConnectionError, match="another server has the keys"):
            await redis.set("a", 2)
        with pytest.raises(RedisConnectionError, match="another server has the keys"):
            await piped.execute("SET", "a", 2)

        async def gone() -> bool:
            return len(await admin.client_list()) == before - 2

        # The server may hear of their ends after what others ask it.
        await eventually(gone, "both connections are gone")
        await admin.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        await redis.set("a", 3)
        assert await piped.execute("GET", "a") == b"3"
        await admin.aclose()
        await redis.aclose()
        piped.drop()


async def test_only_a_master_will_do_and_another_is_asked_after_one_that_will_not() -> None:
    async with running_server(options=["--replicaof", "127.0.0.1", "9"]) as replica, running_server() as master:
        asked: list[Host] = []

        async def ask(host: Host) -> Host:
            asked.append(host)
            return "127.0.0.1", {"a": replica.port, "b": master.port}[host[0]]

        link = TcpLink(finder=Finder([("a", 1), ("b", 2)], ask), only_masters=True, protocol=2, driver_info=None)
        with pytest.raises(RedisConnectionError, match=f"127.0.0.1:{replica.port} is no master, but a slave"):
            await link.connect()  # type: ignore[no-untyped-call]
        await link.connect()  # type: ignore[no-untyped-call]
        assert (link.port, asked) == (master.port, [("a", 1), ("b", 2)])
        await link.disconnect()


def test_what_is_relied_on_of_the_library() -> None:
    pool = connections_to("redis://h", timeout_seconds=3)
    made = pool.make_connection()  # type: ignore[no-untyped-call]
    assert isinstance(made, Connection)
    assert (made.protocol, made.driver_info, made.socket_timeout) == (2, None, 3)
