"""A config in pieces, and put together again."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.xray.config.inbounds import short
from pgnode.xray.process.config_parts import Part, assemble, parts_of

DOCUMENT: dict[str, Any] = {
    "api": {"tag": "api"},
    "other": 1,
    "routing": {"domainStrategy": "AsIs", "rules": [{"port": "1"}], "balancers": [{"tag": "b"}]},
    "inbounds": [{"tag": "in"}, {"tag": "in2"}],
    "observatory": {},
    "outbounds": [{"tag": "out"}],
    "log": {},
}


def test_each_piece_needs_only_those_before() -> None:
    assert [(part.section, part.index) for part in parts_of(DOCUMENT)] == [
        ("log", -1),
        ("outbounds", 0),
        ("observatory", -1),
        ("inbounds", 0),
        ("inbounds", 1),
        ("routing", -1),
        ("routing.balancers", 0),
        ("routing.rules", 0),
        ("other", -1),
    ]


def test_all_pieces_make_the_config() -> None:
    without_api = {name: value for name, value in DOCUMENT.items() if name != "api"}
    assert assemble(parts_of(DOCUMENT)) == without_api
    assert assemble([]) == {}


@pytest.mark.parametrize("document", [{"routing": 5}, {"inbounds": 5}, {"routing": {"rules": 5}}])
def test_what_is_of_the_wrong_type_is_one_piece(document: dict[str, Any]) -> None:
    assert assemble(parts_of(document)) == document
    assert len(parts_of(document)) == 1


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (Part("log", -1, {}), "log"),
        (Part("inbounds", 0, {"tag": "in", "protocol": "vless"}), "inbound 'in' (vless)"),
        (Part("outbounds", 2, {"protocol": "x" * 30}), "outbound #3"),
        (Part("routing.rules", 0, {"ruleTag": "ads"}), "routing rule 'ads'"),
        (Part("routing.balancers", 1, 5), "balancer #2"),
    ],
)
def test_names(part: Part, name: str) -> None:
    assert part.name == name


def test_long_values_are_cut() -> None:
    assert short("x" * 100) == "'" + "x" * 44 + "…'"
