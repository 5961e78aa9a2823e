"""Whole inbounds and outbounds, and lists of users put into them."""

from __future__ import annotations

import pytest

from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.inbounds import with_users, without_users
from pgnode.xray.config.protocols import ACCOUNT_KINDS, SHADOWSOCKS_2022, SINGLE_USER_SETTINGS
from pgnode.xray.proto import core_pb2, shadowsocks_2022_pb2, trojan_pb2
from tests.unit.xray.client.builders import DEADLINE_SECONDS, make_inbound, make_user
from tests.unit.xray.fake_core import FakeCore


@pytest.mark.parametrize("kind", ACCOUNT_KINDS)
def test_users_of_every_kind_of_account(kind: str) -> None:
    users = [make_user("alice"), make_user("bob", 500)]
    changed, rest = with_users(make_inbound("in", kind, [make_user("before")]), users)
    assert not rest
    assert changed == make_inbound("in", kind, users)
    assert without_users(changed) == make_inbound("in", kind)


def test_what_does_not_fit_is_left() -> None:
    users = [make_user(f"user{number}") for number in range(10)]
    inbound = make_inbound("in")
    settings = with_users(inbound, users[:4])[0].proxy_settings.value
    limit = len(settings) + len(inbound.receiver_settings.value) + len(inbound.tag)
    changed, rest = with_users(inbound, users, limit)
    assert list(rest) == users[4:]
    assert len(trojan_pb2.ServerConfig.FromString(changed.proxy_settings.value).users) == 4


def test_an_inbound_for_a_single_user_becomes_one_for_several() -> None:
    inbound = core_pb2.InboundHandlerConfig(tag="in")
    inbound.proxy_settings.type = SINGLE_USER_SETTINGS
    single = shadowsocks_2022_pb2.ServerConfig(method="2022-blake3-aes-128-gcm", key="key")
    inbound.proxy_settings.value = single.SerializeToString()
    changed, rest = with_users(inbound, [make_user("alice")])
    assert not rest
    assert changed.proxy_settings.type == ACCOUNT_KINDS[SHADOWSOCKS_2022].users.type_name
    several = shadowsocks_2022_pb2.MultiUserServerConfig.FromString(changed.proxy_settings.value)
    assert (several.method, several.key, [user.email for user in several.users]) == (single.method, "key", ["alice"])


def test_an_inbound_without_a_list_of_users_is_refused() -> None:
    inbound = core_pb2.InboundHandlerConfig(tag="in")
    inbound.proxy_settings.type = "xray.proxy.http.ServerConfig"
    assert without_users(inbound) == inbound
    with pytest.raises(CoreApiError, match="no list of users"):
        with_users(inbound, [])


async def test_inbounds_come_and_go(fake: FakeCore, api: CoreApi) -> None:
    inbound = make_inbound("in", users=[make_user("alice")])
    await api.inbounds.add_inbound(inbound, DEADLINE_SECONDS)
    assert await api.inbounds.inbound_tags(DEADLINE_SECONDS) == {"in"}
    assert await api.inbounds.list_inbounds(DEADLINE_SECONDS) == [inbound]
    with pytest.raises(CoreApiError) as caught:
        await api.inbounds.add_inbound(inbound, DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    await api.inbounds.remove_inbound("in", DEADLINE_SECONDS)
    with pytest.raises(CoreApiError) as caught:
        await api.inbounds.remove_inbound("in", DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.NO_HANDLER
    with pytest.raises(CoreApiError, match="not complete"):
        await api.inbounds.add_inbound(core_pb2.InboundHandlerConfig(tag="empty"), DEADLINE_SECONDS)
    assert "AddInbound" not in fake.calls[-1], "an empty one would end the core"


async def test_a_bare_inbound_is_asked_for_once(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in", users=[make_user("alice")]))
    fake.add(make_inbound("other"))
    for _ in range(2):
        assert await api.inbounds.bare_inbound("in", DEADLINE_SECONDS) == make_inbound("in")
        assert await api.inbounds.bare_inbound("other", DEADLINE_SECONDS) == make_inbound("other")
    assert fake.calls == ["ListInbounds"]
    with pytest.raises(CoreApiError) as caught:
        await api.inbounds.bare_inbound("none", DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.NO_HANDLER
    await api.inbounds.remove_inbound("in", DEADLINE_SECONDS)
    await api.inbounds.add_inbound(make_inbound("in", "vless"), DEADLINE_SECONDS)
    assert await api.inbounds.bare_inbound("in", DEADLINE_SECONDS) == make_inbound("in", "vless"), "not the one before"


async def test_outbounds_come_and_go(fake: FakeCore, api: CoreApi) -> None:
    outbound = core_pb2.OutboundHandlerConfig(tag="out")
    with pytest.raises(CoreApiError, match="not complete"):
        await api.inbounds.add_outbound(outbound, DEADLINE_SECONDS)
    outbound.proxy_settings.type = "xray.proxy.freedom.Config"
    await api.inbounds.add_outbound(outbound, DEADLINE_SECONDS)
    assert await api.inbounds.list_outbounds(DEADLINE_SECONDS) == [outbound]
    await api.inbounds.remove_outbound("out", DEADLINE_SECONDS)
    assert await api.inbounds.list_outbounds(DEADLINE_SECONDS) == []
    assert "InboundsClient" in repr(api.inbounds)
