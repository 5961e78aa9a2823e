"""The table of protocols is complete, and names messages that are there."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from pgnode.xray.config.protocols import (
    ACCOUNT_KINDS,
    INBOUND_PROTOCOLS,
    KINDS_BY_SETTINGS,
    OUTBOUND_PROTOCOLS,
    SHADOWSOCKS_2022,
    SINGLE_USER_SETTINGS,
    TRANSPORTS,
    WIREGUARD,
    AccountKind,
    Credential,
    Detail,
    Sockets,
    can_be_swapped,
)
from pgnode.xray.proto import (
    hysteria_account_pb2,
    shadowsocks_2022_pb2,
    shadowsocks_pb2,
    trojan_pb2,
    vless_pb2,
    vmess_pb2,
    wireguard_pb2,
)

ACCOUNTS: dict[str, type[Message]] = {
    "vless": vless_pb2.Account,
    "vmess": vmess_pb2.Account,
    "trojan": trojan_pb2.Account,
    "shadowsocks": shadowsocks_pb2.Account,
    SHADOWSOCKS_2022: shadowsocks_2022_pb2.Account,
    "hysteria": hysteria_account_pb2.Account,
    WIREGUARD: wireguard_pb2.PeerConfig,
}


@pytest.mark.parametrize("kind", ACCOUNT_KINDS.values(), ids=lambda kind: kind.name)
def test_kinds_of_accounts_name_the_messages_of_the_core(kind: AccountKind) -> None:
    account = ACCOUNTS[kind.name].DESCRIPTOR
    assert account.full_name == kind.type_name
    assert account.fields_by_number[1].name in ("id", "password", "key", "auth", "public_key")
    assert (kind.detail is Detail.NONE) == (kind.detail_key == "")
    assert kind.users.message.DESCRIPTOR.fields_by_name[kind.users.field].number == kind.users.number
    assert KINDS_BY_SETTINGS[kind.users.type_name] is kind


def test_protocols_with_users() -> None:
    managed = {name for name, row in INBOUND_PROTOCOLS.items() if row.users is not None}
    assert managed == {"vless", "vmess", "trojan", "shadowsocks", "hysteria", "wireguard"}
    assert {kind.name for kind in ACCOUNT_KINDS.values()} == managed | {SHADOWSOCKS_2022}
    assert ACCOUNT_KINDS[SHADOWSOCKS_2022].credential is Credential.KEY


def test_what_a_running_core_can_exchange() -> None:
    assert {name for name, row in INBOUND_PROTOCOLS.items() if not row.hot} == {"wireguard", "tun"}
    assert {name for name, row in OUTBOUND_PROTOCOLS.items() if not row.hot} == {"wireguard", "hysteria", "loopback"}
    assert INBOUND_PROTOCOLS["tun"].sockets is Sockets.NONE


def test_what_cannot_be_observed() -> None:
    found = {name for name, row in OUTBOUND_PROTOCOLS.items() if not row.observable}
    assert found == {"blackhole", "block", "dns", "loopback"}
    assert {name for name, row in OUTBOUND_PROTOCOLS.items() if row.drops} == {"blackhole", "block"}


def test_aliases_of_transports() -> None:
    assert {name: row.name for name, row in TRANSPORTS.items() if name != row.name} == {
        "tcp": "raw",
        "websocket": "ws",
        "splithttp": "xhttp",
        "kcp": "mkcp",
    }
    assert {row.name for row in TRANSPORTS.values() if row.udp} == {"mkcp", "hysteria"}


def test_which_inbounds_may_be_swapped() -> None:
    assert not can_be_swapped(ACCOUNT_KINDS["hysteria"].users.type_name)
    assert can_be_swapped(ACCOUNT_KINDS["vless"].users.type_name)
    assert can_be_swapped(SINGLE_USER_SETTINGS)
    assert not can_be_swapped(ACCOUNT_KINDS[WIREGUARD].users.type_name)
