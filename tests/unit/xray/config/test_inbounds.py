"""What the node knows of an inbound."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.errors import StartFailedError
from pgnode.xray.config.inbounds import InboundSpec, json_type, read_inbound, read_ports
from tests.unit.xray.config.configs import parse, sample, vless


def test_inbound_specs_of_the_wide_sample() -> None:
    specs = {spec.tag: spec for spec in parse(sample("wide")).inbounds}
    assert specs["VLESS TCP REALITY"].flow == "xtls-rprx-vision"
    assert [tag for tag, spec in specs.items() if spec.flow_allowed] == ["VLESS TCP REALITY", "VLESS TCP TLS fallbacks"]
    assert specs["Port range"].ports == ((20460, 20463), (20465, 20465))
    assert specs["Hysteria"].kinds == {"udp"}
    assert specs["Shadowsocks TCP+UDP"].kinds == {"tcp", "udp"}
    assert specs["Trojan unix"].kinds == frozenset()
    assert specs["Trojan unix"].is_unix
    assert (specs["Shadowsocks 2022"].is_shadowsocks_2022, specs["Shadowsocks 2022"].key_bytes) == (True, 16)
    assert (specs["Shadowsocks TCP+UDP"].is_shadowsocks_2022, specs["Shadowsocks TCP+UDP"].key_bytes) == (False, 0)


@pytest.mark.parametrize(
    ("inbound", "kinds"),
    [
        ({"protocol": "vless", "streamSettings": {"network": "kcp"}}, {"udp"}),
        ({"protocol": "vless", "streamSettings": {"network": "xhttp", "tlsSettings": {"alpn": ["h3"]}}}, {"udp"}),
        ({"protocol": "vless", "streamSettings": {"network": "xhttp"}}, {"tcp"}),
        ({"protocol": "socks", "settings": {"udp": True}}, {"tcp", "udp"}),
        ({"protocol": "socks"}, {"tcp"}),
        ({"protocol": "dokodemo-door", "settings": {"network": ["udp"]}}, {"udp"}),
        ({"protocol": "wireguard", "settings": {"secretKey": "A" * 43}}, {"udp"}),
        ({"protocol": "shadowsocks"}, {"tcp"}),
    ],
)
def test_socket_kinds(inbound: dict[str, Any], kinds: set[str]) -> None:
    assert parse({"inbounds": [{"tag": "a", "port": 1, **inbound}]}).inbounds[0].kinds == kinds


def test_inbounds_that_get_no_users() -> None:
    chacha = {"method": "2022-blake3-chacha20-poly1305", "password": "x"}
    base = parse(
        {
            "inbounds": [
                vless("out"),
                vless(""),
                {"tag": "s", "protocol": "socks", "port": 1},
                {"tag": "c", "protocol": "shadowsocks", "port": 1, "settings": chacha},
                vless("in"),
            ]
        },
        exclude=("out",),
    )
    assert list(base.managed_inbounds) == ["in"]
    assert base.document["inbounds"][3]["settings"] == chacha
    assert any("chacha20" in warning for warning in base.warnings)
    assert any("has no tag" in warning for warning in base.warnings)


def test_header_disguise_forbids_flow() -> None:
    stream = {"network": "tcp", "security": "tls", "tcpSettings": {"header": {"type": "http"}}}
    assert not parse({"inbounds": [vless(streamSettings=stream)]}).inbounds[0].flow_allowed
    stream["tcpSettings"] = {"header": {"type": "none"}}
    assert parse({"inbounds": [vless(streamSettings=stream)]}).inbounds[0].flow_allowed


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        (443, ((443, 443),)),
        ("443", ((443, 443),)),
        ("20-22, 30", ((20, 22), (30, 30))),
        ("", ()),
        ("x,5", ((5, 5),)),
        ("9-3", ()),
        # Digits to Python, and none to the core.
        ("٢٣٤", ()),
        (0, ()),
        (70000, ()),
        ("1-70000", ()),
        (True, ()),
        (None, ()),
        ("env:PORT", ()),
    ],
)
def test_ports_of_a_config(value: object, ports: tuple[tuple[int, int], ...]) -> None:
    assert read_ports(value) == ports


@pytest.mark.parametrize(
    ("transport", "protocol", "outlives"),
    [
        ("raw", "vless", True),
        ("tcp", "vless", True),
        ("WebSocket", "trojan", True),
        ("httpupgrade", "socks", True),
        ("grpc", "vless", False),
        ("splithttp", "vless", False),
        ("kcp", "vmess", False),
        ("hysteria", "hysteria", False),
        ("raw", "hysteria", False),
        ("unheard-of", "vless", False),
    ],
)
def test_whose_connections_outlive_their_listener(transport: str, protocol: str, outlives: bool) -> None:
    inbound = {"tag": "a", "port": 1, "protocol": protocol, "streamSettings": {"network": transport}}
    assert read_inbound(inbound, 0, (), []).outlives_listener is outlives


def test_a_tun_inbound_opens_nothing() -> None:
    assert read_inbound({"protocol": "tun"}, 0, (), []).kinds == frozenset()


def test_key_sizes_of_shadowsocks_2022() -> None:
    assert InboundSpec("a", "shadowsocks", method="2022-blake3-aes-256-gcm").key_bytes == 32


def test_a_flow_that_works_nowhere_is_warned_about() -> None:
    warnings: list[str] = []
    inbound = {"tag": "a", "port": 1, "protocol": "vless", "settings": {"flow": "xtls-rprx-vision"}}
    assert read_inbound(inbound, 0, (), warnings).flow == "xtls-rprx-vision"
    assert "works only over TLS or REALITY" in warnings[0]


@pytest.mark.parametrize(
    ("inbound", "cause"),
    [
        ({"tag": 5}, "inbound #3: tag must be a string, not a number"),
        ({"tag": "a", "settings": []}, "inbound 'a': settings must be an object, not a list"),
        ({"tag": "\ud800"}, "half a surrogate pair"),
    ],
)
def test_what_the_node_must_understand_is_refused(inbound: dict[str, Any], cause: str) -> None:
    with pytest.raises(StartFailedError, match=cause):
        read_inbound(inbound, 3, (), [])


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "null"), (True, "a boolean"), ("", "a string"), ([], "a list"), ({}, "an object"), (1.5, "a number")],
)
def test_types_are_named_as_json_does(value: object, name: str) -> None:
    assert json_type(value) == name


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (InboundSpec(tag="b", protocol="vless", transport="ws", listen="::1"), True),
        (InboundSpec(tag="a", protocol="trojan"), False),
        (InboundSpec(tag="a", protocol="vless", flow="xtls-rprx-vision"), False),
        (InboundSpec(tag="a", protocol="vless", flow_allowed=True), False),
        (InboundSpec(tag="a", protocol="vless", method="aes-128-gcm"), False),
    ],
)
def test_in_which_inbounds_a_user_has_the_same_account(other: InboundSpec, same: bool) -> None:
    assert InboundSpec(tag="a", protocol="vless").accounts_as_in(other) is same
