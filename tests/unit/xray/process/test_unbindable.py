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
    assert {inbound["listen"] for inbound in changed["inbounds"]} == {"192.0.2.1", "/dev/null/x"}
    assert [inbound.get("tag") for inbound in changed["inbounds"]] == ["a", "b", "c", "d", None]


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
