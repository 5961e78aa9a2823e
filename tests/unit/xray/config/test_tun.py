"""Settings of ``tun`` inbounds over which a core would end, or which it would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.xray.config.tun import tun_fault


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {},
        {"name": "", "mtu": 0, "gateway": [], "other": 5},
        {"name": None, "mtu": None, "gateway": None, "dns": None},
        {"name": "äö-1", "desc": "x", "mtu": 68, "userLevel": 7},
        {"mtu": 65535, "gateway": ["10.99.0.1/24", "10.99.0.2/24"], "dns": ["any word"]},
        {"mtu": 1280, "gateway": ["fd00::1/64"], "autoSystemRoutingTable": ["10.77.0.1/16", "::/0"]},
        {"mtu": 1200, "gateway": ["10.99.0.1/24"], "autoOutboundsInterface": "none0"},
    ],
)
def test_what_the_core_comes_up_with(settings: dict[str, Any] | None) -> None:
    assert tun_fault(settings) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "settings must be an object, not a list"),
        ({"mtu": "x"}, "settings.mtu must be a whole number from 0 to 4294967295, not 'x'"),
        ({"MTU": "1500"}, "settings.mtu must be a whole number"),
        ({"mtu": 1500.0}, "settings.mtu must be a whole number"),
        ({"mtu": True}, "settings.mtu must be a whole number"),
        ({"mtu": -1}, "settings.mtu must be a whole number"),
        ({"userLevel": 2**32}, "settings.userLevel must be a whole number"),
        ({"mtu": 67}, "settings.mtu 67 is not valid: a network device takes 68 to 65535"),
        ({"mtu": 65536}, "settings.mtu 65536 is not valid"),
        ({"mtu": 1200, "gateway": ["fd00::1/64"]}, "settings.mtu 1200 is not valid: an IPv6 address in gateway needs"),
        ({"name": 3}, "settings.name must be a string, not 3"),
        ({"desc": 3}, "settings.desc must be a string"),
        ({"autoOutboundsInterface": 3}, "settings.autoOutboundsInterface must be a string"),
        ({"gateway": "10.0.0.1/24"}, "settings.gateway must be a list of strings, not '10.0.0.1/24'"),
        ({"dns": [3]}, "settings.dns must be a list of strings"),
        ({"autoSystemRoutingTable": "x"}, "settings.autoSystemRoutingTable must be a list of strings"),
        ({"name": "x" * 16}, "the name 'xxxxxxxxxxxxxxxx' is too long: a network device has at most 15 bytes"),
        ({"name": "ä" * 8}, "the name 'ääääääää' is too long"),
        ({"name": "a/b"}, "the name 'a/b' is none that a network device can have"),
        ({"name": "a%d"}, "the name 'a%d' is none"),
        ({"name": ".."}, "the name '..' is none"),
        ({"name": "a\u00a0b"}, "the name 'a\\xa0b' is none"),
        ({"gateway": ["10.99.0.1"]}, "settings.gateway '10.99.0.1' is no network such as 10.0.0.1/24"),
        ({"gateway": ["10.99.0.1/33"]}, "settings.gateway '10.99.0.1/33' is no network"),
        ({"gateway": ["10.99.0.1/255.255.255.0"]}, "settings.gateway '10.99.0.1/255.255.255.0' is no network"),
        ({"gateway": ["::ffff:10.0.0.1/120"]}, "settings.gateway '::ffff:10.0.0.1/120' is no network"),
        ({"gateway": ["0::0/64"]}, "settings.gateway '0::0/64' is no network"),
        ({"gateway": ["fe80::1%eth0/64"]}, "settings.gateway 'fe80::1%eth0/64' is no network"),
        ({"gateway": ["10.99.0.1/24", "10.99.0.1/24"]}, "settings.gateway has '10.99.0.1/24' twice"),
        ({"autoSystemRoutingTable": ["x/8"]}, "settings.autoSystemRoutingTable 'x/8' is no network such as 10.0.0.0/8"),
        (
            {"autoSystemRoutingTable": ["10.77.0.1/16", "10.77.0.2/16"]},
            "settings.autoSystemRoutingTable has '10.77.0.2/16' twice",
        ),
    ],
)
def test_what_it_ends_over(settings: Any, said: str) -> None:
    found = tun_fault(settings)
    assert (found or "").startswith(said), found
