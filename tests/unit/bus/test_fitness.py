"""What is certainly wrong with a Redis is one sentence; everything else is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from pgnode.bus.access import NEEDS, Role, rules
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.finding import NotFoundError
from pgnode.bus.fitness import certain, look_at
from pgnode.bus.keys import Keys
from pgnode.errors import SettingsError
from pgnode.settings import shown_url
from pgnode.settings.redis_address import complete
from pgnode.testing.ports import free_port
from tests.support.certificates import make_certificate
from tests.support.redis_servers import Sentinel, running_server

KEYS = Keys("node")


async def look(url: str, role: Role = Role.SUPERVISOR) -> None:
    await look_at(url, shown_url(url).partition("?")[0], KEYS, role)


async def refused(url: str, words: str, role: Role = Role.SUPERVISOR) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        await look(url, role)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def set_user(admin: Redis, name: str, *words: str) -> None:
    await admin.execute_command("ACL", "SETUSER", name, "reset", "on", ">hunter2", *words)  # type: ignore[no-untyped-call]


async def logged(admin: Redis) -> Sequence[Any]:
    found: Sequence[Any] = await admin.execute_command("ACL", "LOG")  # type: ignore[no-untyped-call]
    return found


@pytest.mark.parametrize("kind", ["valkey", "redis", "redis 6.2"])
@pytest.mark.parametrize("role", list(Role))
async def test_a_user_with_just_the_rules_is_enough(kind: str, role: Role) -> None:
    async with running_server(kind) as server:
        admin = server.client()
        await set_user(admin, "me", *rules(role, "node").split())
        url = complete(server.url, {"username": "me", "password": "hunter2"})
        await look(url, role)
        assert await logged(admin) == []
        assert await admin.keys() == [], "nothing is left of the tries"
        await admin.aclose()


@pytest.mark.parametrize("kind", ["valkey", "redis", "redis 6.2"])
async def test_each_rule_that_is_missing_is_named(kind: str) -> None:
    async with running_server(kind) as server:
        admin = server.client()
        url = complete(server.url, {"username": "me", "password": "hunter2"})
        whole = rules(Role.SUPERVISOR, "node").split()
        for need in NEEDS:
            if need.rule == "select":
                continue
            await set_user(admin, "me", *(word for word in whole if word != f"+{need.rule}"))
            await refused(
                url, rf"does not allow this node's user {need.rule.replace('|', '.')}.*\+{need.rule.replace('|', '.')}"
            )
        await set_user(admin, "me", *(word for word in whole if not word.startswith("~")))
        await refused(url, r"add to its rules ~node:\*$")
        await set_user(admin, "me", *(word for word in whole if not word.startswith("&")))
        await refused(url, r"add to its rules &node:\*$")
        await admin.aclose()


async def test_a_login_that_is_refused() -> None:
    async with running_server(options=["--requirepass", "hunter2"]) as server:
        await refused(server.url, "asks for a password: set REDIS_USER and REDIS_PASSWORD_FILE")
        await refused(complete(server.url, {"password": "hunter22"}), "refuses user or password")
        await look(complete(server.url, {"password": "hunter2"}))
    async with running_server() as server:
        await refused(complete(server.url, {"username": "x", "password": "hunter2"}), "refuses user or password")


async def test_tls(tmp_path: Path) -> None:
    async with running_server("redis", tls=True) as server:
        assert server.tls is not None
        ca, key = map(str, server.tls)
        own = {"ssl_ca_certs": ca, "ssl_certfile": ca, "ssl_keyfile": key}
        await look(complete(server.url, own))
        await refused(server.url, "has a certificate that is not accepted .self-signed certificate.")
        await refused(complete(server.url, {"ssl_ca_certs": ca}), "asks for a certificate: set REDIS_CERT_FILE")
        other, other_key = map(str, make_certificate(tmp_path, ["x"], []))
        await refused(
            complete(server.url, {"ssl_ca_certs": ca, "ssl_certfile": other, "ssl_keyfile": other_key}),
            "does not accept the certificate in REDIS_CERT_FILE",
        )
        await refused(server.url.replace("rediss", "redis"), "speaks TLS alone: write rediss")
    async with running_server("valkey") as server:
        await refused(server.url.replace("redis", "rediss"), "speaks no TLS: write redis in place of rediss")


async def test_the_wrong_kind() -> None:
    async with running_server(options=["--cluster-enabled", "yes", "--cluster-port", str(free_port())]) as server:
        await refused(server.url, "is a server of a cluster: write redis.cluster://")
    async with running_server("redis") as server:
        config = server.folder / "sentinel.conf"
        config.write_text(f"sentinel monitor main 127.0.0.1 {server.port} 1\n")
        sentinel = Sentinel(server.program, server.folder / "s", config=config)
        try:
            await sentinel.start()
            await refused(sentinel.url, r"is a sentinel: write redis\+sentinel://HOST:PORT/NAME")
            named = f"redis+sentinel://127.0.0.1:{sentinel.port}"
            await look(f"{named}/main")
            await refused(f"{named}/other", "a sentinel of REDIS_URL=.* knows no master 'other': correct the name")
        finally:
            sentinel.kill()
    async with running_server() as server:
        host = f"127.0.0.1:{server.port}"
        await refused(f"redis+cluster://{host}?tag=node", "is no cluster: write redis://")
        await refused(
            f"redis+sentinel://{host}/main",
            "a sentinel of REDIS_URL=redis.sentinel://.* is no sentinel: give the sentinels' port .26379 as a rule., or write "
            "redis://",
        )


@pytest.mark.parametrize("kind", ["valkey", "redis", "redis 6.2"])
async def test_a_database_that_there_is_not(kind: str) -> None:
    async with running_server(kind) as server:
        await look(f"redis://127.0.0.1:{server.port}/15")
        await refused(f"redis://127.0.0.1:{server.port}/16", "has no database with the number at the end: correct it")


async def test_a_refusal_of_sentinels_is_told_apart() -> None:
    error = NotFoundError("s:1: no")
    error.__cause__ = AuthenticationError("no")
    assert certain(error, "redis+sentinel://s/m") == (
        "a sentinel of REDIS_URL=redis+sentinel://s/m refuses user or password: correct REDIS_SENTINEL_USER and "
        "REDIS_SENTINEL_PASSWORD_FILE, or what stands in the address"
    )
    assert "correct REDIS_USER" in str(certain(error, "redis+cluster://s"))
    assert certain(RedisError("x"), "redis://h") is None


async def test_a_version_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_server() as server:

        async def info(_self: object) -> dict[str, str]:
            return {"redis_version": "6.0.16", "redis_mode": "standalone"}

        monkeypatch.setattr("redis.asyncio.Redis.info", info)
        await refused(server.url, "is version 6.0.16: 6.2 is the oldest that the node can use")


async def test_one_that_is_away_or_a_replica_is_waited_for() -> None:
    async with running_server(options=["--replicaof", "127.0.0.1", "9", "--replica-serve-stale-data", "yes"]) as server:
        with pytest.raises(RedisError, match="another server has the keys"):
            await look(server.url)
        url = server.url
    with pytest.raises(BUS_ERRORS):
        await look(url)


async def hangs_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing to anybody."""
    writer.transport.abort()


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that speaks TLS alone, and hangs up on whoever comes through; gives its port."""
    async with await asyncio.start_server(hangs_up, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def tls_of(folder: Path) -> tuple[ssl.SSLContext, Path, Path]:
    """TLS settings of a server, and its files."""
    cert, key = make_certificate(folder, ["localhost"], ["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context, cert, key


async def test_tls_is_asked_of_a_server_without_it() -> None:
    async with running_server("valkey") as server:
        await refused(server.url.replace("redis://", "rediss://"), "speaks no TLS: write redis in place of rediss")


async def test_tls_is_not_asked_of_a_server_that_speaks_nothing_else(tmp_path: Path) -> None:
    context, _, _ = tls_of(tmp_path)
    async with listening(context) as port:
        await refused(f"redis://127.0.0.1:{port}", "speaks TLS alone: write rediss in place of redis")


def turn_away(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Shake hands with whoever comes, and say why not: asyncio's servers hang up before they have said it."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.settimeout(10)
            with connection, contextlib.suppress(OSError):
                try:
                    context.wrap_socket(connection, server_side=True).unwrap()
                finally:
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass


@contextlib.asynccontextmanager
async def asking_for_a_certificate(context: ssl.SSLContext, of: Path) -> AsyncIterator[int]:
    """A server that wants a certificate of its callers; gives its port."""
    context.load_verify_locations(of)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(asyncio.to_thread(turn_away, listener, context))
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        await serving


async def test_a_certificate_is_asked_for_and_there_is_none(tmp_path: Path) -> None:
    context, cert, _ = tls_of(tmp_path)
    async with asking_for_a_certificate(context, cert) as port:
        url = complete(f"rediss://127.0.0.1:{port}", {"ssl_ca_certs": str(cert)})
        await refused(url, "asks for a certificate: set REDIS_CERT_FILE and REDIS_KEY_FILE")


async def test_a_certificate_of_somebody_else_is_refused(tmp_path: Path) -> None:
    context, cert, _ = tls_of(tmp_path)
    (tmp_path / "other").mkdir()
    other, other_key = make_certificate(tmp_path / "other", ["localhost"], ["127.0.0.1"])
    async with asking_for_a_certificate(context, cert) as port:
        files = {"ssl_ca_certs": str(cert), "ssl_certfile": str(other), "ssl_keyfile": str(other_key)}
        await refused(complete(f"rediss://127.0.0.1:{port}", files), "REDIS_CERT_FILE")


async def test_a_server_that_hangs_up_may_be_anything(tmp_path: Path) -> None:
    """That is waited for."""
    context, cert, _ = tls_of(tmp_path)
    async with listening(context) as port:
        with pytest.raises(BUS_ERRORS):
            await look(complete(f"rediss://127.0.0.1:{port}", {"ssl_ca_certs": str(cert)}))
