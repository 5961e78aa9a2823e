"""The client of the core's API against a real core: users, swaps, counters, and what the core refuses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from pgnode.testing.ports import free_port
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind, SwapFailedError
from pgnode.xray.client.inbounds import with_users
from pgnode.xray.client.swap import InboundSwap
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.proto import (
    core_pb2,
    handler_command_pb2,
    hysteria_account_pb2,
    proxyman_pb2,
    shadowsocks_2022_pb2,
    shadowsocks_pb2,
    trojan_pb2,
    typed_message_pb2,
    user_pb2,
    vless_inbound_pb2,
    vless_pb2,
    vmess_pb2,
)
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore, api_part
from tests.integration.xray.plain_core import kind_of
from tests.support.polling import eventually

WIDE = json.loads((Path(__file__).parents[2] / "samples" / "wide.json").read_text())
SERVER_KEY = "AAECAwQFBgcICQoLDA0ODw=="


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def _key(name: str) -> str:
    return base64.b64encode(uuid.uuid5(uuid.NAMESPACE_DNS, name).bytes).decode()


def _user(email: str, account: Message) -> bytes:
    typed = typed_message_pb2.TypedMessage(type=account.DESCRIPTOR.full_name, value=account.SerializeToString())
    return user_pb2.User(email=email, account=typed).SerializeToString()


@dataclass(frozen=True)
class Protocol:
    """How a protocol's inbound, users and client look."""

    settings: dict[str, Any]
    account: Callable[[str], Message]
    client: Callable[[str], dict[str, Any]]
    outbound: Callable[[str, int], dict[str, Any]]
    name: str
    refuses_known: bool = True
    refuses_unknown: bool = True


def _vnext(port: int, user: dict[str, Any]) -> dict[str, Any]:
    return {"vnext": [{"address": "127.0.0.1", "port": port, "users": [user]}]}


def _server(port: int, **more: Any) -> dict[str, Any]:
    return {"servers": [{"address": "127.0.0.1", "port": port, **more}]}


_HYSTERIA = next(item for item in WIDE["inbounds"] if item["tag"] == "Hysteria")

PROTOCOLS = {
    "vless": Protocol(
        {"decryption": "none"},
        lambda name: vless_pb2.Account(id=_id(name)),
        lambda name: {"id": _id(name)},
        lambda name, port: _vnext(port, {"id": _id(name), "encryption": "none"}),
        "vless",
    ),
    "vmess": Protocol(
        {},
        lambda name: vmess_pb2.Account(id=_id(name)),
        lambda name: {"id": _id(name)},
        lambda name, port: _vnext(port, {"id": _id(name), "security": "auto"}),
        "vmess",
    ),
    "trojan": Protocol(
        {},
        lambda name: trojan_pb2.Account(password=name),
        lambda name: {"password": name},
        lambda name, port: _server(port, password=name),
        "trojan",
    ),
    "shadowsocks": Protocol(
        {"network": "tcp,udp"},
        lambda name: shadowsocks_pb2.Account(password=name, cipher_type=shadowsocks_pb2.CipherType.CHACHA20_POLY1305),
        lambda name: {"password": name, "method": "chacha20-poly1305"},
        lambda name, port: _server(port, password=name, method="chacha20-poly1305"),
        "shadowsocks",
        refuses_known=False,
    ),
    "shadowsocks-2022": Protocol(
        {"network": "tcp,udp", "method": "2022-blake3-aes-128-gcm", "password": SERVER_KEY},
        lambda name: shadowsocks_2022_pb2.Account(key=_key(name)),
        lambda name: {"password": _key(name)},
        lambda name, port: _server(port, password=f"{SERVER_KEY}:{_key(name)}", method="2022-blake3-aes-128-gcm"),
        "shadowsocks",
    ),
    "hysteria": Protocol(
        _HYSTERIA["settings"],
        lambda name: hysteria_account_pb2.Account(auth=name),
        lambda name: {"auth": name},
        lambda _name, port: {"version": 2, "address": "127.0.0.1", "port": port},
        "hysteria",
        refuses_known=False,
        refuses_unknown=False,
    ),
}


def _inbound(protocol: Protocol, port: int, first: str = "first") -> dict[str, Any]:
    clients = [{"email": f"{first}@node", **protocol.client(first)}]
    inbound = {
        "tag": "in",
        "listen": "127.0.0.1",
        "port": port,
        "protocol": protocol.name,
        "settings": {**protocol.settings, "clients": clients},
    }
    if protocol.name == "hysteria":
        inbound["streamSettings"] = _HYSTERIA["streamSettings"]
    return inbound


def _config(run_dir: Path, *inbounds: dict[str, Any]) -> str:
    direct = {"protocol": "freedom", "settings": {"finalRules": [{"action": "allow", "ip": ["127.0.0.0/8"]}]}}
    return json.dumps(
        {"log": {"loglevel": "warning"}, "inbounds": inbounds, "outbounds": [direct], **api_part(run_dir)}
    )


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return PROTOCOLS[request.param]


@pytest.fixture(params=[name for name in PROTOCOLS if name != "hysteria"])
def swapped(request: pytest.FixtureRequest) -> Protocol:
    """The protocols whose inbounds can be swapped."""
    return PROTOCOLS[request.param]


async def _emails(api: CoreApi) -> list[str]:
    return sorted(user.email.lower() for user in await api.users.inbound_users("in", DEADLINE_SECONDS))


# --- users


async def test_users_of_each_protocol(run_dir: Path, start_core: StartCore, api: CoreApi, protocol: Protocol) -> None:
    await start_core(EmbeddedCore(), _config(run_dir, _inbound(protocol, free_port())), run_dir)
    limit = DEADLINE_SECONDS
    assert await _emails(api) == ["first@node"]
    await api.users.add_user("in", _user("New@node", protocol.account("new")), limit)
    assert await _emails(api) == ["first@node", "new@node"]
    assert await api.users.inbound_user_count("in", limit) == 2
    account = protocol.account("new").DESCRIPTOR.full_name
    assert {user.account.type for user in await api.users.inbound_users("in", limit)} == {account}

    known = await kind_of(api.users.add_user("in", _user("New@node", protocol.account("new")), limit))
    assert known is (ErrorKind.ALREADY_EXISTS if protocol.refuses_known else None)
    unknown = await kind_of(api.users.remove_user("in", "nobody@node", limit))
    assert unknown is (ErrorKind.NOT_FOUND if protocol.refuses_unknown else None)

    while len(await _emails(api)) > 1:
        await api.users.remove_user("in", "New@node", limit)
    assert await _emails(api) == ["first@node"]


async def test_what_the_core_refuses(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    inbound = _inbound(PROTOCOLS["shadowsocks"], free_port())
    await start_core(EmbeddedCore(), _config(run_dir, inbound), run_dir)
    limit = DEADLINE_SECONDS
    account = shadowsocks_pb2.Account(password="x", cipher_type=shadowsocks_pb2.CipherType.UNKNOWN)
    with pytest.raises(CoreApiError) as caught:
        await api.users.add_user("in", _user("a@node", account), limit)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.REFUSED, "Unsupported cipher")
    assert await kind_of(api.users.remove_user("absent", "a@node", limit)) is ErrorKind.NO_HANDLER
    assert await kind_of(api.inbounds.remove_inbound("absent", limit)) is ErrorKind.NO_HANDLER
    assert await kind_of(api.users.inbound_users("absent", limit)) is ErrorKind.NO_HANDLER
    assert await kind_of(api.swap.replace_users("absent", [], limit)) is ErrorKind.NO_HANDLER
    (running,) = await api.inbounds.list_inbounds(limit)
    assert await kind_of(api.inbounds.add_inbound(running, limit)) is ErrorKind.ALREADY_EXISTS
    assert await kind_of(api.inbounds.add_inbound(core_pb2.InboundHandlerConfig(tag="x"), limit)) is ErrorKind.REFUSED
    assert await kind_of(api.inbounds.add_outbound(core_pb2.OutboundHandlerConfig(tag="x"), limit)) is ErrorKind.REFUSED
    assert (await api.stats.sys_stats(limit)).NumGoroutine > 0, "the core still runs"


async def test_alter_many(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["vless"]
    await start_core(EmbeddedCore(), _config(run_dir, _inbound(protocol, free_port())), run_dir)
    users = [AlterOperation.add("in", _user(f"u{n}@node", protocol.account(str(n)))) for n in range(500)]
    odd = [
        AlterOperation.remove("in", "nobody@node"),
        AlterOperation.add("in", _user("first@node", protocol.account("x"))),
        AlterOperation.remove("absent", "a@node"),
    ]
    results = await api.users.alter_many([*users, *odd], DEADLINE_SECONDS)
    assert results[:500] == [None] * 500
    assert [error and error.kind for error in results[500:]] == [
        ErrorKind.NOT_FOUND,
        ErrorKind.ALREADY_EXISTS,
        ErrorKind.NO_HANDLER,
    ]
    assert await api.users.inbound_user_count("in", DEADLINE_SECONDS) == 501
    # Operations on one e-mail keep their order.
    again = [AlterOperation.remove("in", "U7@node"), users[7]] * 20
    assert await api.users.alter_many(again, DEADLINE_SECONDS) == [None] * 40
    assert await api.users.alter_many([], DEADLINE_SECONDS) == []
    late = await api.users.alter_many(users[:3], 0.0)
    assert [error and error.kind for error in late] == [ErrorKind.DEADLINE] * 3


@given(tag=st.text(max_size=300), email=st.text(max_size=20), size=st.integers(0, 70_000))
def test_requests_are_the_messages_of_the_core(tag: str, email: str, size: int) -> None:
    user = _user(email, trojan_pb2.Account(password="x" * size))
    parse = handler_command_pb2.AlterInboundRequest.FromString
    added = parse(AlterOperation.add(tag, user).request())
    assert (added.tag, added.operation.type) == (tag, "xray.app.proxyman.command.AddUserOperation")
    operation = handler_command_pb2.AddUserOperation.FromString(added.operation.value)
    assert operation.user == user_pb2.User.FromString(user)
    removed = parse(AlterOperation.remove(tag, email).request())
    assert (removed.tag, removed.operation.type) == (tag, "xray.app.proxyman.command.RemoveUserOperation")
    assert handler_command_pb2.RemoveUserOperation.FromString(removed.operation.value).email == email


# --- swap


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def _echo_server() -> AsyncIterator[int]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _client_config(run_dir: Path, protocol: Protocol, ports: tuple[int, int, int], name: str = "first") -> str:
    """A core that listens on the first port and forwards through the second to the third."""
    local, port, target = ports
    outbound: dict[str, Any] = {"protocol": protocol.name, "settings": protocol.outbound(name, port)}
    if protocol.name == "hysteria":
        pin = {"serverName": "node.example", "alpn": ["h3"], "pinnedPeerCertSha256": _certificate_hash()}
        outbound["streamSettings"] = {
            "network": "hysteria",
            "security": "tls",
            "tlsSettings": pin,
            "hysteriaSettings": {"version": 2, "auth": name},
        }
    entry = {
        "listen": "127.0.0.1",
        "port": local,
        "protocol": "dokodemo-door",
        "settings": {"address": "127.0.0.1", "port": target, "network": "tcp"},
    }
    log = {"loglevel": "warning"}
    return json.dumps({"log": log, "inbounds": [entry], "outbounds": [outbound], **api_part(run_dir)})


def _certificate_hash() -> str:
    import hashlib
    import ssl

    pem = "\n".join(_HYSTERIA["streamSettings"]["tlsSettings"]["certificates"][0]["certificate"])
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


async def _ask(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes) -> bytes:
    reader, writer = stream
    async with asyncio.timeout(DEADLINE_SECONDS):
        writer.write(text)
        await writer.drain()
        return await reader.readexactly(len(text))


async def test_a_swap_keeps_live_connections(
    run_dir: Path, start_core: StartCore, api: CoreApi, swapped: Protocol
) -> None:
    port, local = free_port(), free_port()
    await start_core(EmbeddedCore(), _config(run_dir, _inbound(swapped, port)), run_dir)
    (run_dir / "c").mkdir()
    async with _echo_server() as target:
        client = _client_config(run_dir / "c", swapped, (local, port, target))
        await start_core(EmbeddedCore(), client, run_dir / "c")
        live = await asyncio.open_connection("127.0.0.1", local)
        assert await _ask(live, b"before") == b"before"
        users = [_user(f"{n}@node", swapped.account(n)) for n in ("first", "second", "third")]
        assert list(await api.swap.replace_users("in", users, DEADLINE_SECONDS)) == []
        assert await _emails(api) == ["first@node", "second@node", "third@node"]
        assert await _ask(live, b"after") == b"after"

        async def new_connection_works() -> bool:
            fresh = await asyncio.open_connection("127.0.0.1", local)
            try:
                async with asyncio.timeout(2):
                    return await _ask(fresh, b"new") == b"new"
            finally:
                fresh[1].close()

        await eventually(
            new_connection_works,
            "a new connection after the swap",
            errors=(OSError, TimeoutError, asyncio.IncompleteReadError),
        )
        live[1].close()


async def test_a_refused_swap_puts_the_old_one_back(
    run_dir: Path, start_core: StartCore, api: CoreApi, swapped: Protocol
) -> None:
    await start_core(EmbeddedCore(), _config(run_dir, _inbound(swapped, free_port())), run_dir)
    await api.users.add_user("in", _user("later@node", swapped.account("later")), DEADLINE_SECONDS)
    bad = user_pb2.User(email="bad@node")
    with pytest.raises(SwapFailedError, match="the old one is back") as caught:
        await api.swap.replace_users("in", [bad.SerializeToString()], DEADLINE_SECONDS)
    assert caught.value.restored
    assert await _emails(api) == ["first@node", "later@node"]


async def test_hysteria_is_altered_and_never_swapped(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["hysteria"]
    port, local = free_port(), free_port()
    await start_core(EmbeddedCore(), _config(run_dir, _inbound(protocol, port)), run_dir)
    (run_dir / "c").mkdir()
    async with _echo_server() as target:
        client = _client_config(run_dir / "c", protocol, (local, port, target))
        await start_core(EmbeddedCore(), client, run_dir / "c")
        live = await asyncio.open_connection("127.0.0.1", local)
        assert await _ask(live, b"before") == b"before"
        users = [_user("second@node", protocol.account("second"))]
        assert await kind_of(api.swap.replace_users("in", users, DEADLINE_SECONDS)) is ErrorKind.REFUSED
        await api.users.add_user("in", users[0], DEADLINE_SECONDS)
        assert await _emails(api) == ["first@node", "second@node"]
        assert await _ask(live, b"after") == b"after"
        live[1].close()


async def test_a_swap_that_does_not_fit(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["vless"]
    await start_core(EmbeddedCore(), _config(run_dir, _inbound(protocol, free_port())), run_dir)
    users = [_user(f"{n}{'x' * 200}@node", protocol.account(str(n))) for n in range(16_000)]
    rest = await api.swap.replace_users("in", users, DEADLINE_SECONDS)
    assert 0 < len(rest) < len(users)
    assert list(rest) == users[-len(rest) :]
    assert await api.users.inbound_user_count("in", DEADLINE_SECONDS) == len(users) - len(rest)
    added = await api.users.alter_many([AlterOperation.add("in", user) for user in rest[:10]], DEADLINE_SECONDS)
    assert added == [None] * 10
    # And the way back of a refused swap, with more users than one message takes.
    swap = InboundSwap(api.inbounds, api.users, limit_bytes=100_000)
    count = await api.users.inbound_user_count("in", DEADLINE_SECONDS)
    with pytest.raises(SwapFailedError) as caught:
        await swap.replace_users("in", [users[0], users[0]], DEADLINE_SECONDS)
    assert caught.value.restored
    assert await api.users.inbound_user_count("in", DEADLINE_SECONDS) == count


async def test_shadowsocks_2022_without_users(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["shadowsocks-2022"]
    inbound = _inbound(protocol, free_port())
    inbound["settings"]["clients"] = []
    await start_core(EmbeddedCore(), _config(run_dir, inbound), run_dir)
    user = _user("a@node", protocol.account("a"))
    assert await kind_of(api.users.add_user("in", user, DEADLINE_SECONDS)) is ErrorKind.REFUSED, (
        "made for a single user"
    )
    assert list(await api.swap.replace_users("in", [], DEADLINE_SECONDS)) == []
    await api.users.add_user("in", user, DEADLINE_SECONDS)
    assert await _emails(api) == ["a@node"]
    settings = (await api.inbounds.list_inbounds(DEADLINE_SECONDS))[0].proxy_settings
    several = shadowsocks_2022_pb2.MultiUserServerConfig.FromString(settings.value)
    assert (several.method, several.key, len(several.network)) == ("2022-blake3-aes-128-gcm", SERVER_KEY, 2)


def test_with_users_keeps_what_it_does_not_know() -> None:
    unknown = b"\x1a\x04none"  # decryption = 3
    config = vless_inbound_pb2.Config.FromString(unknown)
    config.users.add(email="old")
    inbound = core_pb2.InboundHandlerConfig(tag="t")
    inbound.proxy_settings.type = "xray.proxy.vless.inbound.Config"
    inbound.proxy_settings.value = config.SerializeToString()
    inbound.receiver_settings.value = proxyman_pb2.ReceiverConfig().SerializeToString()
    user = _user("new", vless_pb2.Account(id="x"))
    changed, rest = with_users(inbound, [user])
    assert list(rest) == []
    assert changed.proxy_settings.value.startswith(unknown)
    found = vless_inbound_pb2.Config.FromString(changed.proxy_settings.value)
    assert [item.email for item in found.users] == ["new"]
    assert (changed.tag, changed.receiver_settings) == ("t", inbound.receiver_settings)
    inbound.proxy_settings.type = "xray.proxy.dokodemo.Config"
    with pytest.raises(CoreApiError, match="no list of users"):
        with_users(inbound, [])


# --- counters


async def test_counters_and_online_users(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["vless"]
    port, local = free_port(), free_port()
    await start_core(EmbeddedCore(), _config(run_dir, _inbound(protocol, port)), run_dir)
    limit = DEADLINE_SECONDS
    assert await api.stats.get_stat("user>>>first@node>>>traffic>>>uplink", limit) is None
    assert await api.stats.online_count("first@node", limit) is None
    assert await api.stats.online_ips("first@node", limit) is None
    assert await api.stats.online_users(limit) == []
    assert await api.stats.online(limit) == {}
    (run_dir / "c").mkdir()
    async with _echo_server() as target:
        config = json.loads(_client_config(run_dir / "c", protocol, (local, port, target)))
        config["outbounds"][0]["sendThrough"] = "127.0.0.2"
        await start_core(EmbeddedCore(), json.dumps(config), run_dir / "c")
        stream = await asyncio.open_connection("127.0.0.1", local)
        assert await _ask(stream, b"x" * 5000) == b"x" * 5000
        assert await api.stats.online_count("first@node", limit) == 1
        ips = await api.stats.online_ips("first@node", limit)
        assert ips is not None
        assert abs(ips["127.0.0.2"] - time.time()) < 60
        assert await api.stats.online(limit) == {"first@node": ips}
        assert await api.stats.online_users(limit) == ["user>>>first@node>>>online"]
        stream[1].close()

        async def counted() -> bool:
            return (await api.stats.get_stat("user>>>first@node>>>traffic>>>uplink", limit) or 0) >= 5000

        await eventually(counted, "5,000 bytes counted")
    found = {stat.name: stat.value for stat in (await api.stats.query_stats("user>>>", limit)).stat}
    assert found["user>>>first@node>>>traffic>>>downlink"] >= 5000
