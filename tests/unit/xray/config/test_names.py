"""Names that a config may hold, and those that it may not."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.xray.config.names import (
    NAME_CHARACTERS_MAX,
    balancer_names,
    listed,
    name_fault,
    outbound_names,
    target_fault,
    target_warnings,
    unplain,
)
from tests.unit.xray.config.configs import config, parse, vless

RULE = {"type": "field", "network": "tcp", "outboundTag": "DIRECT"}


def outbound(**changes: Any) -> dict[str, Any]:
    return {"tag": "out", "protocol": "freedom"} | changes


def rules(**changes: Any) -> dict[str, Any]:
    return {"routing": {"rules": [RULE, RULE | changes]}}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({}, None),
        ({"inbounds": [vless("каналы 通道")]}, None),
        ({"inbounds": [vless("a\x1b[31m")]}, "inbound #1: tag 'a\\x1b[31m' holds the control character '\\x1b'"),
        ({"inbounds": [vless("a\x9b")]}, "inbound #1: tag "),
        ({"inbounds": [vless("a\u2028b")]}, "inbound #1: tag "),
        ({"inbounds": [vless("a>>>b")]}, "inbound #1: tag 'a>>>b' holds \">>>\""),
        ({"inbounds": [vless("x" * 257)]}, "inbound #1: tag 'xxx"),
        ({"inbounds": [vless("x" * 256)]}, None),
        ({"inbounds": [vless() | {"listen": "127.0.0.1\n"}]}, "inbound 'in': listen '127.0.0.1\\n' holds"),
        ({"inbounds": [vless() | {"sniffing": {"destOverride": ["a\nb"]}}]}, None),
        ({"outbounds": [outbound(), outbound(tag="o\n")]}, "outbound #2: tag"),
        ({"outbounds": [outbound(protocol="fr\nee")]}, "outbound 'out': protocol 'fr\\nee' holds"),
        ({"outbounds": [outbound(settings={"reverse": {"tag": "a\tb"}})]}, "outbound 'out': settings.reverse.tag "),
        ({"outbounds": [outbound(settings={"response": {"text": "a\nb"}})]}, None),
        (rules(ruleTag="r\n1"), "routing rule #2: ruleTag 'r\\n1' holds"),
        (rules(domain=["a.example", "domain:a\nb"]), "routing rule #2: domain[1] 'domain:a\\nb' holds"),
        (rules(ruleTag="named", inboundTag=["a\n"]), "routing rule 'named': inboundTag[0] "),
        ({"routing": {"balancers": [{"tag": "b\n", "selector": []}]}}, "balancer #1: tag"),
        ({"routing": {"domainStrategy": "As\nIs"}}, "routing domainStrategy"),
        ({"log": {"loglevel": "x\ny"}}, "log loglevel 'x\\ny' holds"),
        ({"dns": {"hosts": {"a\nb": "1.1.1.1"}}}, "dns hosts: the key 'a\\nb' holds"),
        ({"routing": {"rules": []}, "policy": {"levels": {"0": {"x": ["a\x00"]}}}}, "policy levels.0.x[0] "),
    ],
)
def test_names(sections: dict[str, Any], said: str | None) -> None:
    base = parse(config(**sections))
    found = name_fault(base.document, base.numbers.of(base.document))
    assert (found is None) == (said is None), found
    assert (found or "").startswith(said or ""), found
    assert len(found or "") < NAME_CHARACTERS_MAX


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200f", "\u200c", "\ufeff"])
def test_marks_of_scripts_may_stand_in_names(mark: str) -> None:
    assert unplain(f"a{mark}b", is_name=True) is None


def test_a_balancer_that_nobody_has_is_a_fault() -> None:
    sections = rules(ruleTag="far", outboundTag=None, balancerTag="none")
    sections["routing"]["balancers"] = [{"Tag": f"b{number}", "selector": ["D"]} for number in range(7)]
    base = parse(config(**sections))
    said = target_fault(base.document, base.numbers.of(base.document))
    assert (
        said == "routing rule 'far': unknown balancerTag 'none'; the config has 'b0', 'b1', 'b2', 'b3', 'b4' and 2 more"
    )
    both = parse(config(**rules(balancerTag="none")))
    assert target_fault(both.document, both.numbers.of(both.document)) is None


def test_an_outbound_that_nobody_has_is_told_once() -> None:
    sections: dict[str, Any] = {"routing": {"rules": [RULE | {"outboundTag": tag} for tag in ("A", "A", "m", "p", "")]}}
    sections |= {"metrics": {"tag": "m"}, "reverse": {"portals": [{"tag": "p", "domain": "x.example"}]}}
    base = parse(config(**sections))
    [said] = target_warnings(base.document, base.numbers.of(base.document))
    assert said == "routing rule #1: no outbound has the tag 'A': connections that match are dropped"
    assert said in base.warnings


def test_names_of_a_config() -> None:
    document: dict[str, Any] = {
        "inbounds": [5, {"settings": {"clients": [7, {"reverse": {"tag": "r"}}, {"reverse": 5}]}}],
        "outbounds": [5, {"tag": "a"}, {"tag": 5}],
        "routing": {"balancers": [5, {"TAG": "b"}]},
    }
    assert outbound_names(document) == ["a", "r"]
    assert balancer_names(document) == ["b"]
    assert listed([]) == "none"
