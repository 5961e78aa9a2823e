"""What a panel sends for a WireGuard core, and a client's way in, fit together."""

from __future__ import annotations

from pgnode.testing.wireguard import addresses, interface, peer, way_out, wireguard_link
from pgnode.xray.config.peers import key_hex, public_key_of


def test_keys_fit_together() -> None:
    config, user = interface(mtu=None, pre_shared_key=None), peer("117", addresses(2))
    assert ("mtu" in config, "pre_shared_key" in config) == (False, False)
    link = wireguard_link(config, user)
    settings = link.outbound["settings"]
    assert public_key_of(key_hex(settings["secretKey"]) or "") == key_hex(user.proxies.wireguard.public_key)
    assert public_key_of(key_hex(config["private_key"]) or "") == key_hex(settings["peers"][0]["publicKey"])
    assert settings["address"] == ["10.66.0.2/32", "fd66::2/128"]
    assert (link.name, wireguard_link(config, user, name="x").name) == ("117", "x")


def test_another_key_is_another() -> None:
    first, second = peer("117", []), peer("117", [], key="new")
    assert first.proxies.wireguard.public_key != second.proxies.wireguard.public_key


def test_everything_leads_to_the_target() -> None:
    assert way_out(80)["settings"]["redirect"] == "127.0.0.1:80"
