"""Faults that can be told without the core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgnode.xray.process.config_parts import Part
from pgnode.xray.process.known_faults import known_fault

INBOUND: dict[str, Any] = {"tag": "in", "protocol": "vless", "port": 443}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"protocol": "vlezz"}, "inbound 'in' (vlezz): protocol 'vlezz' is not one the core knows"),
        ({"protocol": 5}, "inbound 'in': protocol 5 is not one the core knows"),
        ({"protocol": "freedom"}, "inbound 'in' (freedom): protocol 'freedom' is not one the core knows"),
        ({"listen": "node.example"}, "inbound 'in' (vless): listen 'node.example' is no IP address and no path"),
        ({"listen": "@abstract", "port": None}, None),
        ({"port": None}, "inbound 'in' (vless): port is missing"),
        ({"port": "http"}, "inbound 'in' (vless): port 'http' is not valid: ports are 1 to 65535, ranges go upwards"),
        ({"port": "env:PORT"}, None),
        ({"protocol": "tun", "port": None}, None),
        ({"streamSettings": {"network": "quic"}}, "inbound 'in' (vless): transport 'quic' is not one the core knows"),
        ({"streamSettings": {"method": "WebSocket"}}, None),
        ({"streamSettings": 5}, None),
        (
            {"streamSettings": {"tlsSettings": {"certificates": [{"certificateFile": "/none.pem"}]}}},
            "inbound 'in' (vless): certificateFile '/none.pem' does not exist",
        ),
        ({"streamSettings": {"tlsSettings": {"certificates": [5]}}}, None),
    ],
)
def test_of_an_inbound(change: dict[str, Any], fault: str | None) -> None:
    assert known_fault(Part("inbounds", 0, INBOUND | change), []) == fault


def test_of_an_outbound() -> None:
    assert known_fault(Part("outbounds", 0, {"protocol": "freedom"}), []) is None
    fault = known_fault(Part("outbounds", 0, {"protocol": "dokodemo-door"}), [])
    assert fault == "outbound #1 (dokodemo-door): protocol 'dokodemo-door' is not one the core knows"


def test_tags_that_are_there_twice() -> None:
    rule = Part("routing.rules", 1, {"ruleTag": "ads", "outboundTag": "x"})
    assert (
        known_fault(rule, [Part("routing.rules", 0, {"ruleTag": "ads"})]) == "two routing rules have the ruleTag 'ads'"
    )
    assert known_fault(Part("inbounds", 1, INBOUND), [Part("inbounds", 0, INBOUND)]) == "two inbounds have the tag 'in'"
    assert known_fault(Part("inbounds", 1, INBOUND), [Part("outbounds", 0, {"tag": "in"})]) is None


def test_a_rule_that_leads_nowhere() -> None:
    fault = known_fault(Part("routing.rules", 0, {"port": "1"}), [])
    assert fault == "routing rule #1 has neither outboundTag nor balancerTag"
    assert known_fault(Part("routing.balancers", 0, {"tag": "b"}), []) is None
    assert known_fault(Part("log", -1, {}), []) is None


def test_a_certificate_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    stream = {"tlsSettings": {"certificates": [{"certificateFile": str(tmp_path / "cert.pem")}]}}
    assert known_fault(Part("inbounds", 0, INBOUND | {"streamSettings": stream}), []) is None
