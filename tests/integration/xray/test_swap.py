"""All users of an inbound exchanged at once in a real core: live connections stay, and a refused swap is undone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pgnode.supervisor.users.decoding import account_in
from pgnode.supervisor.users.swap_message import swap_entry
from pgnode.testing.ports import free_port
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind, SwapFailedError
from pgnode.xray.client.inbounds import with_users
from pgnode.xray.client.swap import InboundSwap
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.accounts import is_user
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.proto import core_pb2, proxyman_pb2, shadowsocks_2022_pb2, user_pb2, vless_inbound_pb2, vless_pb2
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore
from tests.integration.xray.plain_core import kind_of
from tests.integration.xray.protocols import (
    PROTOCOLS,
    SERVER_KEY,
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
from tests.unit.supervisor.users.models import vless_user


@pytest.fixture(params=[name for name in PROTOCOLS if name != "hysteria"])
def swapped(request: pytest.FixtureRequest) -> Protocol:
    """The protocols whose inbounds can be swapped."""
    return PROTOCOLS[request.param]


async def test_a_swap_keeps_live_connections(
    run_dir: Path, start_core: StartCore, api: CoreApi, swapped: Protocol
) -> None:
    port, local = free_port(), free_port()
    await start_core(EmbeddedCore(), config_with(run_dir, inbound_of(swapped, port)), run_dir)
    (run_dir / "c").mkdir()
    async with echo_server() as target:
        client = client_config(run_dir / "c", swapped, (local, port, target))
        await start_core(EmbeddedCore(), client, run_dir / "c")
        live = await asyncio.open_connection("127.0.0.1", local)
        assert await ask(live, b"before") == b"before"
        users = [user_of(f"{n}@node", swapped.account(n)) for n in ("first", "second", "third")]
        assert list(await api.swap.replace_users("in", users, DEADLINE_SECONDS)) == []
        assert await emails(api) == ["first@node", "second@node", "third@node"]
        assert await ask(live, b"after") == b"after"

        async def new_connection_works() -> bool:
            fresh = await asyncio.open_connection("127.0.0.1", local)
            try:
                async with asyncio.timeout(2):
                    return await ask(fresh, b"new") == b"new"
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
    await start_core(EmbeddedCore(), config_with(run_dir, inbound_of(swapped, free_port())), run_dir)
    await api.users.add_user("in", user_of("later@node", swapped.account("later")), DEADLINE_SECONDS)
    bad = user_pb2.User(email="bad@node")
    with pytest.raises(SwapFailedError, match="the old one is back") as caught:
        await api.swap.replace_users("in", [bad.SerializeToString()], DEADLINE_SECONDS)
    assert caught.value.restored
    assert await emails(api) == ["first@node", "later@node"]


async def test_hysteria_is_altered_and_never_swapped(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["hysteria"]
    port, local = free_port(), free_port()
    await start_core(EmbeddedCore(), config_with(run_dir, inbound_of(protocol, port)), run_dir)
    (run_dir / "c").mkdir()
    async with echo_server() as target:
        client = client_config(run_dir / "c", protocol, (local, port, target))
        await start_core(EmbeddedCore(), client, run_dir / "c")
        live = await asyncio.open_connection("127.0.0.1", local)
        assert await ask(live, b"before") == b"before"
        users = [user_of("second@node", protocol.account("second"))]
        assert await kind_of(api.swap.replace_users("in", users, DEADLINE_SECONDS)) is ErrorKind.REFUSED
        await api.users.add_user("in", users[0], DEADLINE_SECONDS)
        assert await emails(api) == ["first@node", "second@node"]
        assert await ask(live, b"after") == b"after"
        live[1].close()


async def test_an_id_without_dashes_is_listed_with_them(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["vless"]
    await start_core(EmbeddedCore(), config_with(run_dir, inbound_of(protocol, free_port())), run_dir)
    raw = vless_user("second@node", 7, ("in",)).SerializeToString(deterministic=True)
    inbound = InboundSpec(tag="in", protocol="vless", managed=True)
    entry, found = swap_entry(raw, inbound), account_in(raw, inbound)
    assert entry is not None
    assert found is not None
    assert await api.swap.replace_users("in", [entry], DEADLINE_SECONDS) == []
    [there] = await api.users.inbound_users("in", DEADLINE_SECONDS)
    assert is_user(there, found[1])


async def test_a_swap_that_does_not_fit(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    protocol = PROTOCOLS["vless"]
    await start_core(EmbeddedCore(), config_with(run_dir, inbound_of(protocol, free_port())), run_dir)
    users = [user_of(f"{n}{'x' * 200}@node", protocol.account(str(n))) for n in range(16_000)]
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
    inbound = inbound_of(protocol, free_port())
    inbound["settings"]["clients"] = []
    await start_core(EmbeddedCore(), config_with(run_dir, inbound), run_dir)
    user = user_of("a@node", protocol.account("a"))
    assert await kind_of(api.users.add_user("in", user, DEADLINE_SECONDS)) is ErrorKind.REFUSED, (
        "made for a single user"
    )
    assert list(await api.swap.replace_users("in", [], DEADLINE_SECONDS)) == []
    await api.users.add_user("in", user, DEADLINE_SECONDS)
    assert await emails(api) == ["a@node"]
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
    user = user_of("new", vless_pb2.Account(id="x"))
    changed, rest = with_users(inbound, [user])
    assert list(rest) == []
    assert changed.proxy_settings.value.startswith(unknown)
    found = vless_inbound_pb2.Config.FromString(changed.proxy_settings.value)
    assert [item.email for item in found.users] == ["new"]
    assert (changed.tag, changed.receiver_settings) == ("t", inbound.receiver_settings)
    inbound.proxy_settings.type = "xray.proxy.dokodemo.Config"
    with pytest.raises(CoreApiError, match="no list of users"):
        with_users(inbound, [])
