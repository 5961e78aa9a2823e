"""Faults that the core does not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgnode.xray.config.faults import config_fault
from tests.unit.xray.config.configs import config, parse, vless

FOLDER = Path("/run/node-of-test")
ENVIRONMENT = {"PORT": "443", "RANGE": "1000-1010", "WORD": "abc", "ADDRESS": "127.0.0.9"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"port": "443,1000-2000"}, None),
        ({"port": "env:PORT"}, None),
        ({"port": "env:RANGE,9"}, None),
        ({"port": "env:UNSET"}, "inbound 'in': port 'env:UNSET' is not valid: the core has no variable 'UNSET'"),
        ({"port": "1,env:WORD"}, "inbound 'in': port '1,env:WORD' is not valid: it is 'abc' there"),
        ({"listen": "env:ADDRESS"}, None),
        ({"listen": "env:WORD"}, "inbound 'in': listen 'env:WORD' is 'abc' there, which is no IP address"),
        ({"listen": "env:UNSET"}, "inbound 'in': listen 'env:UNSET': the core has no variable 'UNSET'"),
        ({"listen": "/x.sock,rw"}, "inbound 'in': listen '/x.sock,rw': behind the comma"),
        ({"listen": "/x.sock,0666,1"}, "inbound 'in': listen '/x.sock,0666,1': behind the comma"),
        ({"listen": "/x.sock,0666"}, None),
        ({"listen": "/x/"}, "inbound 'in': listen '/x/' is a folder"),
        ({"listen": "@"}, "inbound 'in': listen '@' has no name"),
        ({"listen": "@@x"}, None),
        ({"protocol": "tun", "settings": {"name": "x" * 16}}, "inbound 'in': the name"),
        ({"protocol": "tun", "settings": {"name": "a/b"}}, "inbound 'in': the name"),
        ({"tag": "a\nb"}, "inbound #1: tag 'a\\nb' holds the control character '\\n'"),
        (
            {"streamSettings": {"tlsSettings": {"certificates": [{"keyFile": "/none.pem"}]}}},
            "inbound 'in': keyFile '/none.pem'",
        ),
        ({"port": 0}, "inbound 'in': port 0 is not valid"),
        ({"port": 70000}, "inbound 'in': port 70000 is not valid"),
        ({"port": -1}, "inbound 'in': port -1 is not valid"),
        ({"port": True}, "inbound 'in': port True is not valid"),
        ({"port": 1.5}, "inbound 'in': port 1.5 is not valid"),
        ({"port": None}, "inbound 'in': port is missing"),
        ({"port": "20-10"}, "inbound 'in': port '20-10' is not valid"),
        ({"port": "80,x"}, "inbound 'in': port '80,x' is not valid"),
        ({"port": "0"}, "inbound 'in': port '0' is not valid"),
        ({"port": [1]}, "inbound 'in': port [1] is not valid"),
        ({"port": "9" * 5000}, "inbound 'in': port '9999"),
        ({"tag": "", "port": 0}, "inbound #1: port 0 is not valid"),
        ({"listen": "/run/x.sock", "port": None}, None),
        ({"protocol": "tun", "port": None}, None),
        ({"protocol": "vlezz", "port": None}, None),
    ],
)
def test_of_an_inbound(change: dict[str, Any], said: str | None) -> None:
    base = parse(config(inbounds=[vless() | change]), environment=ENVIRONMENT)
    found = config_fault(base, FOLDER, environment=ENVIRONMENT)
    assert (found is None) == (said is None), found
    assert (found or "").startswith(said or "")
    assert len(found or "") < 200


def test_of_the_whole() -> None:
    assert "that of inbound 'in'" in (config_fault(parse(config(inbounds=[vless(), vless("other")])), FOLDER) or "")
    assert (config_fault(parse(config(metrics={"listen": "x"})), FOLDER) or "").startswith("metrics: ")
    assert "the node's own folder" in (config_fault(parse(config(dns={"x": f"{FOLDER}/core.sock"})), FOLDER) or "")
