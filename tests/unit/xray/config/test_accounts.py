"""Which account a user gets, and its forms for the core."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import (
    Account,
    UnusableAccountError,
    account_for,
    accounts_of,
    client_json,
    credential_of,
    email_key,
    further_credentials,
    listed_credentials,
    replaces,
    tags_of,
    user_message,
)
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.protocols import SHADOWSOCKS_2022
from pgnode.xray.proto import (
    hysteria_account_pb2,
    shadowsocks_2022_pb2,
    shadowsocks_pb2,
    trojan_pb2,
    typed_message_pb2,
    user_pb2,
    vless_pb2,
    vmess_pb2,
    wireguard_pb2,
)

USER_ID = "5783a3e7-e373-51cd-8642-c83782b807c5"
MESSAGES: dict[str, Any] = {
    "vless": vless_pb2.Account,
    "vmess": vmess_pb2.Account,
    "trojan": trojan_pb2.Account,
    "shadowsocks": shadowsocks_pb2.Account,
    "shadowsocks-2022": shadowsocks_2022_pb2.Account,
    "hysteria": hysteria_account_pb2.Account,
}
CIPHERS = {"aes-128-gcm": 5, "aes-256-gcm": 6, "chacha20-poly1305": 7, "xchacha20-poly1305": 8}


def spec(protocol: str, **more: Any) -> InboundSpec:
    return InboundSpec(tag="in", protocol=protocol, managed=True, **more)


def shadowsocks(password: str = "secret", method: str = "aes-256-gcm") -> pb.Proxy:
    return pb.Proxy(shadowsocks=pb.Shadowsocks(password=password, method=method))


@pytest.mark.parametrize("protocol", ["vless", "vmess", "trojan", "shadowsocks", "hysteria", "socks", "wireguard"])
def test_no_proxy_of_the_protocol_is_no_account(protocol: str) -> None:
    assert (
        account_for(pb.Proxy(wireguard=pb.Wireguard(public_key="k"), masque=pb.Masque(**{"pass": "p"})), spec(protocol))
        is None
    )
    # Callers also send empty messages for what a user does not have.
    empty = pb.Proxy(
        vless=pb.Vless(), vmess=pb.Vmess(), trojan=pb.Trojan(), shadowsocks=pb.Shadowsocks(), hysteria=pb.Hysteria()
    )
    assert account_for(empty, spec(protocol)) is None


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("xyz", "vless id is not a UUID"),
        (USER_ID + "0", "is not a UUID"),
        (USER_ID + "\n", "is not a UUID"),
        ("{" + USER_ID, "is not a UUID"),
        ("z" * 200, "vless id is not a UUID"),
    ],
)
def test_ids_that_are_no_uuid(text: str, cause: str) -> None:
    with pytest.raises(UnusableAccountError) as caught:
        account_for(pb.Proxy(vless=pb.Vless(id=text)), spec("vless"))
    assert cause in str(caught.value)


@pytest.mark.parametrize("text", [USER_ID, USER_ID.upper(), USER_ID.replace("-", ""), "{" + USER_ID + "}"])
def test_ids_become_canonical(text: str) -> None:
    assert account_for(pb.Proxy(vmess=pb.Vmess(id=text)), spec("vmess")) == Account("vmess", USER_ID)


@pytest.mark.parametrize(
    ("user_flow", "inbound_flow", "allowed", "expected"),
    [
        ("", "", True, ""),
        ("xtls-rprx-vision", "", True, "xtls-rprx-vision"),
        ("xtls-rprx-vision-udp443", "", True, "xtls-rprx-vision"),
        ("none", "", True, ""),
        ("xtls-rprx-vision", "", False, ""),
        ("unknown", "", False, ""),
        ("", "xtls-rprx-vision", True, "xtls-rprx-vision"),
        ("unknown", "xtls-rprx-vision", True, "xtls-rprx-vision"),
    ],
)
def test_flow(user_flow: str, inbound_flow: str, allowed: bool, expected: str) -> None:
    proxies = pb.Proxy(vless=pb.Vless(id=USER_ID, flow=user_flow))
    account = account_for(proxies, spec("vless", flow=inbound_flow, flow_allowed=allowed))
    assert account == Account("vless", USER_ID, expected)


def test_an_unknown_flow_is_a_bad_user_where_it_would_count() -> None:
    with pytest.raises(UnusableAccountError, match="flow 'unknown' is not supported"):
        account_for(pb.Proxy(vless=pb.Vless(id=USER_ID, flow="unknown")), spec("vless", flow_allowed=True))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("aes-128-gcm", "aes-128-gcm"),
        ("AES-256-GCM", "aes-256-gcm"),
        ("chacha20-poly1305", "chacha20-poly1305"),
        ("chacha20-ietf-poly1305", "chacha20-poly1305"),
        ("xchacha20-poly1305", "xchacha20-poly1305"),
        ("XChaCha20-ietf-poly1305", "xchacha20-poly1305"),
    ],
)
def test_shadowsocks_methods(method: str, expected: str) -> None:
    assert account_for(shadowsocks(method=method), spec("shadowsocks")) == Account("shadowsocks", "secret", expected)


@pytest.mark.parametrize("method", ["", "foo", "none", "aes-128-cfb", "2022-blake3-aes-128-gcm"])
def test_unknown_shadowsocks_methods_are_never_no_encryption(method: str) -> None:
    with pytest.raises(UnusableAccountError) as caught:
        account_for(shadowsocks(method=method), spec("shadowsocks"))
    assert str(caught.value) == f"shadowsocks method {method!r} is not supported"


@pytest.mark.parametrize(("method", "key_bytes"), [("2022-blake3-aes-128-gcm", 16), ("2022-blake3-aes-256-gcm", 32)])
def test_shadowsocks_2022_keys(method: str, key_bytes: int) -> None:
    inbound = spec("shadowsocks", method=method)
    key = base64.b64encode(bytes(range(key_bytes))).decode()
    # Whatever the user's own method is: the inbound's counts.
    assert account_for(shadowsocks(key, "foo"), inbound) == Account("shadowsocks-2022", key)
    # Bits behind the key are none of it: written otherwise, it is the same one to the core.
    body = key.rstrip("=")
    odd = f"{body[:-1]}{chr(ord(body[-1]) + 1)}{'=' * (len(key) - len(body))}"
    assert account_for(shadowsocks(odd, ""), inbound) == Account("shadowsocks-2022", key)
    for password in ("secret", "ключ", base64.b64encode(bytes(key_bytes - 1)).decode(), key + "\n"):
        digest = hashlib.sha256(password.encode()).digest()[:key_bytes]
        assert account_for(shadowsocks(password), inbound) == Account(
            "shadowsocks-2022", base64.b64encode(digest).decode()
        )


def test_accounts_of_takes_managed_inbounds_of_the_user_only() -> None:
    inbounds = {
        "a": InboundSpec("a", "trojan", managed=True),
        "b": InboundSpec("b", "trojan", managed=True),
        "c": InboundSpec("c", "trojan", managed=False),
        "d": InboundSpec("d", "vless", managed=True),
    }
    user = pb.User(
        email="u", proxies=pb.Proxy(trojan=pb.Trojan(password="p")), inbounds=["a", "c", "d", "elsewhere", "a"]
    )
    assert accounts_of(user, inbounds) == {"a": Account("trojan", "p")}
    user.proxies.vless.id = "bad"
    with pytest.raises(UnusableAccountError, match="vless id is not a UUID"):
        accounts_of(user, inbounds)
    del user.inbounds[:]
    assert accounts_of(user, inbounds) == {}
    user.email = ""
    with pytest.raises(UnusableAccountError, match="email is empty"):
        accounts_of(user, inbounds)


@given(
    st.text(max_size=3) | st.text(min_size=60, max_size=140),
    st.none() | st.text(max_size=3) | st.text(min_size=100, max_size=300),
    st.lists(st.text(max_size=4) | st.text(min_size=500, max_size=600), max_size=4),
)
def test_tags_are_read_from_the_bytes_of_a_user(email: str, password: str | None, tags: list[str]) -> None:
    user = pb.User(email=email, inbounds=tags)
    if password is not None:
        user.proxies.trojan.password = password
    assert list(tags_of(user.SerializeToString())) == tags


def test_tags_of_an_odd_message_are_those_that_the_parser_finds() -> None:
    user = pb.User(email="alice", inbounds=["a"], proxies=pb.Proxy(trojan=pb.Trojan(password="p")))
    fields = [pb.User(email="x" * 200).SerializeToString(), user.SerializeToString(), b"\x7a\x01x"]
    for order in ([1, 0], [2, 1], [1, 2, 1]):
        raw = b"".join(fields[at] for at in order)
        assert list(tags_of(raw)) == list(pb.User.FromString(raw).inbounds)


def test_secrets_stay_out_of_the_repr() -> None:
    assert "hidden" not in repr(Account("trojan", "hidden"))


@pytest.mark.parametrize(
    ("email", "key"), [("Alice@Node", "alice@node"), ("ΟΔΟΣ", "οδοσ"), ("İ", "i"), ("ÄÖ", "äö"), ("", "")]
)
def test_email_keys_are_lower_case_as_go_does_it(email: str, key: str) -> None:
    assert email_key(email) == key


secrets = st.text(min_size=1, max_size=300)
accounts = st.one_of(
    st.builds(Account, st.just("vless"), st.just(USER_ID), st.sampled_from(["", "xtls-rprx-vision"])),
    st.just(Account("vmess", USER_ID)),
    st.builds(Account, st.sampled_from(["trojan", "hysteria", "shadowsocks-2022"]), secrets, st.just("")),
    st.builds(Account, st.just("shadowsocks"), secrets, st.sampled_from(sorted(CIPHERS))),
)


@given(email=st.text(min_size=1, max_size=200), account=accounts)
def test_wire_form_is_what_protobuf_would_write(email: str, account: Account) -> None:
    message = MESSAGES[account.protocol]()
    field = message.DESCRIPTOR.fields_by_number[1].name
    setattr(message, field, account.secret)
    if account.protocol == "vless":
        message.flow = account.detail
    elif account.protocol == "shadowsocks":
        message.cipher_type = CIPHERS[account.detail]
    typed = typed_message_pb2.TypedMessage(type=message.DESCRIPTOR.full_name, value=message.SerializeToString())
    assert account.typed == typed.SerializeToString(deterministic=True)
    user = user_pb2.User(email=email, account=typed)
    assert user_message(email, account) == user.SerializeToString(deterministic=True)


@given(email=st.text(min_size=1, max_size=50), account=accounts)
def test_json_form_holds_the_same(email: str, account: Account) -> None:
    client = json.loads(client_json(email, account))
    assert client.pop("email") == email
    secret = {"vless": "id", "vmess": "id", "hysteria": "auth"}.get(account.protocol, "password")
    assert client.pop(secret) == account.secret
    detail = {"vless": "flow", "shadowsocks": "method"}
    assert client == ({detail[account.protocol]: account.detail} if account.detail else {})


@given(password=st.text(min_size=1), identifier=st.uuids())
def test_accounts_are_equal_by_value(password: str, identifier: Any) -> None:
    proxies = pb.Proxy(
        vless=pb.Vless(id=str(identifier)),
        trojan=pb.Trojan(password=password),
        shadowsocks=pb.Shadowsocks(password=password),
    )
    copy = pb.Proxy.FromString(proxies.SerializeToString())
    for inbound in (spec("vless"), spec("trojan"), spec("shadowsocks", method="2022-blake3-aes-256-gcm")):
        first, second = account_for(proxies, inbound), account_for(copy, inbound)
        assert first is not None
        assert (first, hash(first)) == (second, hash(second))


def test_the_core_drops_two_bytes_of_a_vless_id_and_finds_shadowsocks_users_by_trying() -> None:
    first = credential_of(Account("vless", "00112233-4455-6677-8899-aabbccddeeff"))
    assert first == credential_of(Account("vless", "00112233-4455-ffff-8899-aabbccddeeff", "flow"))
    assert first != credential_of(Account("vless", "00112233-4456-6677-8899-aabbccddeeff"))
    assert first != credential_of(Account("vmess", "00112233-4455-6677-8899-aabbccddeeff"))
    assert credential_of(Account("shadowsocks", "x", "aes-128-gcm")) == ""
    assert credential_of(Account("trojan", "x")) != credential_of(Account("hysteria", "x"))


@pytest.mark.parametrize(
    "account",
    [
        Account("vless", "00112233-4455-6677-8899-aabbccddeeff", "xtls-rprx-vision"),
        Account("vmess", "00112233-4455-6677-8899-aabbccddeeff"),
        Account("trojan", "x" * 200),
        Account(SHADOWSOCKS_2022, "AAAAAAAAAAAAAAAAAAAAAA=="),
        Account("hysteria", "x"),
        Account("shadowsocks", "x", "aes-128-gcm"),
        Account("wireguard", "ab" * 32, f"{'cd' * 32}|10.66.0.2/32,fd66::2/128"),
    ],
)
def test_the_credential_of_a_listed_user_is_that_of_its_account(account: Account) -> None:
    user = user_pb2.User.FromString(user_message("a", account))
    assert listed_credentials(user) == {credential_of(account), *further_credentials(account)} - {""}
    user.account.value = b"\x0a\xff"
    assert listed_credentials(user) == set()
    user.account.type = "something.else"
    assert listed_credentials(user) == set()


def test_inbounds_that_are_alike_share_one_account_and_others_do_not() -> None:
    """A user has in each inbound what it would have if that were its only one, whatever stands before it."""
    specs = [
        InboundSpec(tag="plain", protocol="vless", managed=True),
        InboundSpec(tag="alike", protocol="vless", managed=True, transport="ws"),
        InboundSpec(tag="unmanaged", protocol="trojan"),
        InboundSpec(tag="flow allowed", protocol="vless", managed=True, flow_allowed=True),
        InboundSpec(tag="flow", protocol="vless", managed=True, flow="xtls-rprx-vision"),
        InboundSpec(tag="trojan", protocol="trojan", managed=True),
        InboundSpec(tag="none", protocol="hysteria", managed=True),
        InboundSpec(tag="none either", protocol="hysteria", managed=True),
        InboundSpec(tag="shadowsocks", protocol="shadowsocks", managed=True),
        InboundSpec(tag="128", protocol="shadowsocks", managed=True, method="2022-blake3-aes-128-gcm"),
        InboundSpec(tag="256", protocol="shadowsocks", managed=True, method="2022-blake3-aes-256-gcm"),
    ]
    proxies = pb.Proxy(
        vless=pb.Vless(id="00112233-4455-6677-8899-aabbccddeeff", flow="xtls-rprx-vision"),
        trojan=pb.Trojan(password="p"),
        shadowsocks=pb.Shadowsocks(password="p", method="aes-128-gcm"),
    )
    inbounds = {spec.tag: spec for spec in specs}
    expected = {spec.tag: account_for(proxies, spec) for spec in specs if spec.managed}
    found = accounts_of(pb.User(email="a", proxies=proxies, inbounds=list(inbounds)), inbounds)
    assert found == {tag: account for tag, account in expected.items() if account is not None}
    assert found["plain"] is found["alike"]
    assert len({found[tag].secret for tag in ("shadowsocks", "128", "256")}) == 3


KEY = "R6XbAD+C2cd1Q70Ai9nHp+6aGMlOO+KwQbt33MO8UgY="
PEERS = ["10.66.0.2/32", "fd66::2"]


def wireguard(key: str = KEY, addresses: Iterable[str] = PEERS) -> pb.Proxy:
    return pb.Proxy(wireguard=pb.Wireguard(public_key=key, peer_ips=addresses))


def test_a_wireguard_user_and_its_forms() -> None:
    account = account_for(wireguard(), spec("wireguard", pre_shared_key="cd" * 32))
    assert account is not None
    assert account.secret == "47a5db003f82d9c77543bd008bd9c7a7ee9a18c94e3be2b041bb77dcc3bc5206"
    typed = typed_message_pb2.TypedMessage.FromString(account.typed)
    peer = wireguard_pb2.PeerConfig.FromString(typed.value)
    assert typed.type == "xray.proxy.wireguard.PeerConfig"
    assert peer == wireguard_pb2.PeerConfig(
        public_key=account.secret, pre_shared_key="cd" * 32, allowed_ips=["10.66.0.2/32", "fd66::2/128"]
    )
    assert json.loads(client_json("117", account)) == {
        "email": "117",
        "publicKey": account.secret,
        "preSharedKey": "cd" * 32,
        "allowedIPs": ["10.66.0.2/32", "fd66::2/128"],
    }
    assert "cd" not in repr(account)
    assert further_credentials(account) == ["wireguard network 10.66.0.2/32", "wireguard network fd66::2/128"]
    assert further_credentials(Account("vless", "x")) == []


def test_a_wireguard_user_without_addresses_has_no_account() -> None:
    assert account_for(wireguard(addresses=[]), spec("wireguard")) is None
    assert account_for(pb.Proxy(), spec("wireguard")) is None


@pytest.mark.parametrize(
    ("proxies", "text"),
    [
        (wireguard(key=""), "wireguard public_key is empty"),
        (wireguard(key="abc"), "wireguard public_key is not 32 bytes in base64"),
        (wireguard(addresses=["10.66.0.2", "x"]), "wireguard peer_ips: 'x' is no address or network"),
        (
            wireguard(key="q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="),
            "wireguard public_key is that of the node itself",
        ),
    ],
)
def test_unusable_wireguard_users(proxies: pb.Proxy, text: str) -> None:
    with pytest.raises(UnusableAccountError) as caught:
        account_for(proxies, spec("wireguard", public_key="ab" * 32))
    assert str(caught.value) == text


def test_an_addition_replaces_only_a_wireguard_user_with_the_same_key() -> None:
    first = Account("wireguard", "ab" * 32, "|10.66.0.2/32")
    assert replaces(first._replace(detail="|10.66.0.3/32"), first)
    assert not replaces(first._replace(secret="cd" * 32), first)
    assert not replaces(Account("trojan", "x"), Account("trojan", "x"))
