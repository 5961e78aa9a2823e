"""Keys and addresses of WireGuard, read and written."""

from __future__ import annotations

import base64
import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.xray.config import peers
from pgnode.xray.proto import wireguard_pb2

#: A throwaway pair.
PRIVATE = "iNYYcyzO9yG90cYds7RMbOfVGvsLSBHm9+GsYILpvmw="
PUBLIC = "OhzUy2vCJxVtUI+y3/l2zy+8YrJk7tDie/gMnsmmMHg="


@given(st.binary(min_size=32, max_size=32))
def test_a_key_has_many_forms_and_is_one(key: bytes) -> None:
    text = base64.b64encode(key).decode()
    assert peers.key_hex(text) == peers.key_hex(text.rstrip("=")) == key.hex()
    urlsafe = base64.urlsafe_b64encode(key).decode()
    assert {peers.core_key_hex(form) for form in (text, urlsafe, urlsafe.rstrip("="), key.hex())} == {key.hex()}


@pytest.mark.parametrize(
    "text", ["", "=", "AAAA", "A" * 44, PRIVATE[:-2] + "!=", PRIVATE + "AAAA", "ключ", "x" * 64, PRIVATE + "\n"]
)
def test_what_is_no_key(text: str) -> None:
    assert peers.key_hex(text) is None
    assert peers.core_key_hex(text) is None


def test_the_public_key_of_a_private_one() -> None:
    private, public = peers.key_hex(PRIVATE), peers.key_hex(PUBLIC)
    assert private is not None
    assert peers.public_key_of(private) == public


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.66.0.2", "10.66.0.2/32"),
        ("10.66.0.2/32", "10.66.0.2/32"),
        ("10.66.0.2/24", "10.66.0.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("fd66::2", "fd66::2/128"),
        ("FD66:0::2/128", "fd66::2/128"),
        ("::/0", "::/0"),
        ("::102:304", "::102:304/128"),
        ("", None),
        ("10.66.0", None),
        ("10.66.0.256", None),
        ("010.66.0.2", None),
        ("10.66.0.2/33", None),
        ("10.66.0.2/255.255.255.0", None),
        ("10.66.0.2/", None),
        ("10.66.0.2/-1", None),
        ("fe80::1%eth0", None),
        ("fd66::2/", None),
        ("fd66::2/64", "fd66::/64"),
        ("::ffff:10.66.0.2/128", None),
        ("::ffff:10.66.0.0/112", None),
        ("::ffff:10.66.0.2", None),
        ("fd66::2/129", None),
        ("one", None),
        (" 10.66.0.2", None),
    ],
)
def test_networks(text: str, found: str | None) -> None:
    assert peers.network(text) == found


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_addresses_are_read_as_the_library_reads_them(address: ipaddress.IPv4Address, length: int) -> None:
    assert peers.network(str(address)) == f"{address}/32"
    assert peers.network(f"{address}/{length}") == str(ipaddress.ip_network(f"{address}/{length}", strict=False))


@pytest.mark.parametrize(
    ("key", "text"),
    [("", "is empty"), ("x", "is not 32 bytes in base64"), (PUBLIC, "is that of the node itself")],
)
def test_keys_that_no_user_can_have(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^public_key {text}$"):
        peers.user_key(key, peers.key_hex(PUBLIC) or "")


@pytest.mark.parametrize("pre_shared", ["", "ab" * 32])
def test_a_detail_and_its_forms(pre_shared: str) -> None:
    detail = peers.detail(pre_shared, ["10.66.0.2", "fd66::2/128", "10.66.0.2/32"])
    assert peers.without_key(detail) == "10.66.0.2/32,fd66::2/128"
    message = wireguard_pb2.PeerConfig.FromString(peers.fields(detail))
    assert (message.pre_shared_key, list(message.allowed_ips)) == (pre_shared, ["10.66.0.2/32", "fd66::2/128"])
    written: dict[str, Any] = json.loads(f'{{"publicKey":""{peers.json_fields(detail)}}}')
    assert written.get("preSharedKey", "") == pre_shared
    assert written["allowedIPs"] == ["10.66.0.2/32", "fd66::2/128"]
    credentials = peers.network_credentials(detail)
    assert [peers.network_of(one) for one in credentials] == ["10.66.0.2/32", "fd66::2/128"]
    assert peers.listed_credentials(message.SerializeToString()) == credentials


def test_what_is_no_address_is_named() -> None:
    with pytest.raises(ValueError, match=r"^peer_ips: '10\.66\.0\.300' is no address or network$"):
        peers.detail("", ["10.66.0.2", "10.66.0.300"])
