"""A config with which no core can serve, and which is refused for what the original is refused for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgnode.xray.process.unbindable import is_address, unbindable


def test_nothing_of_it_could_serve() -> None:
    document: dict[str, Any] = {
        "api": {"tag": "api"},
        "metrics": {"tag": "m", "Listen": "127.0.0.1:1"},
        "inbounds": [
            {"tag": "a", "port": 1},
            {"tag": "b", "listen": "::1", "port": 1},
            {"tag": "c", "listen": "/run/x.sock"},
            {"tag": "d", "listen": "@x"},
            {"tag": "e", "protocol": "tun"},
        ],
    }
    before = json.dumps(document)
    changed = unbindable(document)
    assert json.dumps(document) == before
    assert "api" not in changed
    assert changed["metrics"] == {"tag": "m"}
    assert {inbound.get("listen") for inbound in changed["inbounds"]} == {"192.0.2.1", "/dev/null/x", None}
    assert [inbound.get("tag") for inbound in changed["inbounds"]] == ["a", "b", "c", "d", "e", None]


@pytest.mark.parametrize("settings", [None, {}, {"name": "t0", "mtu": "x"}, {"Name": "t0"}, {"name": None}])
def test_no_network_device_is_set_up(settings: object) -> None:
    inbound = {"protocol": "Tun", "settings": settings}
    [changed, _] = unbindable({"inbounds": [inbound]})["inbounds"]
    assert changed["settings"].pop("name") == "pgnode/no-device"
    assert {**changed["settings"], "name": 0}.items() <= {**(settings or {}), "name": 0}.items()  # type: ignore[dict-item]


@pytest.mark.parametrize("settings", [5, [], {"name": 5}])
def test_settings_of_a_device_that_the_core_refuses_stay_for_it_to_refuse(settings: object) -> None:
    inbound = {"protocol": "tun", "settings": settings}
    assert unbindable({"inbounds": [inbound]})["inbounds"][0] == inbound


def test_what_the_core_does_not_understand_is_kept() -> None:
    odd: list[Any] = [{"listen": "node.example"}, {"listen": 5}, "no object"]
    assert unbindable({"inbounds": odd})["inbounds"][:-1] == odd


@pytest.mark.parametrize(
    ("listen", "fine"),
    [
        ("", True),
        ("localhost", True),
        ("env:X", True),
        ("[::1]", True),
        ("192.0.2.7", True),
        ("a.b", False),
        (5, False),
    ],
)
def test_addresses(listen: object, fine: bool) -> None:
    assert is_address(listen) is fine
