"""The client of the core's API against a real core: users, counters, and what the core refuses."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.testing.ports import free_port
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.proto import core_pb2, handler_command_pb2, shadowsocks_pb2, trojan_pb2, user_pb2
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore
from tests.integration.xray.plain_core import kind_of
from tests.integration.xray.protocols import (
    PROTOCOLS,
    Protocol,
    ask,
    client_config,
    config_with,
    echo_server,
    emails,
    inbound_of,
    user_of,
)
from tests.support.polling import eventually


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return PROTOCOLS[request.param]


async def test_users_of_each_protocol(run_dir: Path, start_core: StartCore, api: CoreApi, protocol: Protocol) -> None:
    await start_core(EmbeddedCore(), config_with(run_dir, inbound_of(protocol, free_port())), run_dir)
    limit = DEADLINE_SECONDS
    assert await emails(api) == ["first@node"]
    await api.users.add_user("in", user_of("New@node", protocol.account("new")), limit)
    assert await emails(api) == ["first@node", "new@node"]
    assert await api.users.inbound_user_count("in", limit) == 2
    account = protocol.account("new").DESCRIPTOR.full_name
    assert {user.account.type for user in await api.users.inbound_users("in", limit)} == {account}

    known = await kind_of(api.users.add_user("in", user_of("New@node", protocol.account("new")), limit))
    assert known is (ErrorKind.ALREADY_EXISTS if protocol.refuses_known else None)
    unknown = await kind_of(api.users.remove_user("in", "nobody@node", limit))
    assert unknown is (ErrorKind.NOT_FOUND if protocol.refuses_unknown else None)

    while len(await emails(api)) > 1:
        await api.users.remove_user("in", "New@node", limit)
    assert await emails(api) == ["first@node"]


async def test_what_the_core_refuses(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    inbound = inbound_of(PROTOCOLS["shadowsocks"], free_port())
    await start_core(EmbeddedCore(), config_with(run_dir, inbound), run_dir)
    limit = DEADLINE_SECONDS
    account = shadowsocks_pb2.Account(password="x", cipher_type=shadowsocks_pb2.CipherType.UNKNOWN)
    with pytest.raises(CoreApiError) as caught:
        await api.users.add_user("in", user_of("a@node", account), limit)
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
    await start_core(EmbeddedCore(), config_with(run_dir, inbound_of(protocol, free_port())), run_dir)
    users = [AlterOperation.add("in", user_of(f"u{n}@node", protocol.account(str(n)))) for n in range(500)]
    odd = [
        AlterOperation.remove("in", "nobody@node"),
        AlterOperation.add("in", user_of("first@node", protocol.account("x"))),
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
    user = user_of(email, trojan_pb2.Account(password="x" * size))
    parse = handler_command_pb2.AlterInboundRequest.FromString
    added = parse(AlterOperation.add(tag, user).request())
    assert (added.tag, added.operation.type) == (tag, "xray.app.proxyman.command.AddUserOperation")
    operation = handler_command_pb2.AddUserOperation.FromString(added.operation.value)
    assert operation.user == user_pb2.User.FromString(user)
    removed = parse(AlterOperation.remove(tag, email).request())
    assert (removed.tag, removed.operation.type) == (tag, "xray.app.proxyman.command.RemoveUserOperation")
    assert handler_command_pb2.RemoveUserOperation.FromString(removed.operation.value).email == email


async def test_counters_and_online_users(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["vless"]
    port, local = free_port(), free_port()
    await start_core(EmbeddedCore(), config_with(run_dir, inbound_of(protocol, port)), run_dir)
    limit = DEADLINE_SECONDS
    assert await api.stats.get_stat("user>>>first@node>>>traffic>>>uplink", limit) is None
    assert await api.stats.online_count("first@node", limit) is None
    assert await api.stats.online_ips("first@node", limit) is None
    assert await api.stats.online_users(limit) == set()
    assert await api.stats.online(limit) == {}
    (run_dir / "c").mkdir()
    async with echo_server() as target:
        config = json.loads(client_config(run_dir / "c", protocol, (local, port, target)))
        config["outbounds"][0]["sendThrough"] = "127.0.0.2"
        await start_core(EmbeddedCore(), json.dumps(config), run_dir / "c")
        stream = await asyncio.open_connection("127.0.0.1", local)
        assert await ask(stream, b"x" * 5000) == b"x" * 5000
        assert await api.stats.online_count("first@node", limit) == 1
        ips = await api.stats.online_ips("first@node", limit)
        assert ips is not None
        assert abs(ips["127.0.0.2"] - time.time()) < 60
        assert await api.stats.online(limit) == {"first@node": ips}
        assert await api.stats.online_users(limit) == {"first@node"}
        stream[1].close()

        async def counted() -> bool:
            return (await api.stats.get_stat("user>>>first@node>>>traffic>>>uplink", limit) or 0) >= 5000

        await eventually(counted, "5,000 bytes counted")
    found = {stat.name: stat.value for stat in (await api.stats.query_stats("user>>>", limit)).stat}
    assert found["user>>>first@node>>>traffic>>>downlink"] >= 5000
