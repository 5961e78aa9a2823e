"""Configs are what a panel sends: an inbound for each protocol, on ports of their own."""

from __future__ import annotations

from pgnode.testing.configs import config_tags, make_config, make_inbound, plain_inbounds


def test_a_config_has_its_inbounds_and_reaches_loopback() -> None:
    config = make_config(plain_inbounds())
    assert config_tags(config) == ["VLESS", "VMess", "Trojan", "Shadowsocks", "Shadowsocks-2022"]
    assert len({item["port"] for item in config["inbounds"]}) == 5
    assert config["outbounds"][0]["settings"]["finalRules"][0]["ip"] == ["127.0.0.0/8"]


def test_an_inbound_takes_settings_and_a_stream() -> None:
    made = make_inbound("in", "vless", stream={"network": "grpc"}, fallbacks=[])
    assert made["settings"] == {"clients": [], "decryption": "none", "fallbacks": []}
    assert made["streamSettings"] == {"network": "grpc"}
    assert "streamSettings" not in make_inbound("in", "trojan")
