"""Faults that the core does not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgnode.xray.config.faults import config_fault
from tests.unit.xray.config.configs import config, parse, vless

FOLDER = Path("/run/node-of-test")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"port": "443,1000-2000"}, None),
        ({"port": "env:PORT"}, None),
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
    found = config_fault(parse(config(inbounds=[vless() | change])), FOLDER)
    assert (found is None) == (said is None), found
    assert (found or "").startswith(said or "")
    assert len(found or "") < 200


def test_of_the_whole() -> None:
    assert "that of inbound 'in'" in (config_fault(parse(config(inbounds=[vless(), vless("other")])), FOLDER) or "")
    assert (config_fault(parse(config(metrics={"listen": "x"})), FOLDER) or "").startswith("metrics: ")
    assert "the node's own folder" in (config_fault(parse(config(dns={"x": f"{FOLDER}/core.sock"})), FOLDER) or "")
