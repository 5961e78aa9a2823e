"""The desired rules: what a change makes of them, what is stored of them, and to which config they belong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import InvalidRequestError, NotFoundError
from pgnode.store.changes import Journal
from pgnode.supervisor.routing.queries import route_context
from pgnode.supervisor.routing.rule_table import (
    ADDED_MAX,
    RuleTable,
    balancer_tags,
    default_outbound,
    outbound_tags,
    tagged,
)
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.document import BaseConfig, parse_config, render
from pgnode.xray.config.rewrite import GUARD_RULE_TAG

A = {"ruleTag": "a", "outboundTag": "DIRECT", "domain": ["a.example"]}
B = {"ruleTag": "b", "balancerTag": "bal", "network": ["tcp"]}


def base(**parts: Any) -> BaseConfig:
    config = {
        "inbounds": [
            {"tag": "in", "protocol": "vless", "port": 20000, "settings": {"clients": [], "decryption": "none"}}
        ],
        "outbounds": [{"tag": "DIRECT", "protocol": "freedom"}, {"tag": "BLOCK", "protocol": "blackhole"}],
        "routing": {"rules": [A], "balancers": [{"tag": "bal", "selector": ["D"]}]},
        **parts,
    }
    return parse_config(json.dumps(config), exclude_inbounds=(), api_socket="/run/x.sock", assets_dir=None)


BASE = base()
OTHER = base(dns={"servers": ["localhost"]})


def changed(*rules: dict[str, Any], journal: Journal | None = None) -> RuleTable:
    table = RuleTable(Journal() if journal is None else journal)
    table.set_rules(BASE, list(rules))
    return table


def test_a_table_is_nothing_to_another_config() -> None:
    journal = Journal()
    table = changed(B, journal=journal)
    table.set_override(BASE, "bal", "DIRECT")
    assert (table.rules(BASE), table.rules(OTHER)) == ([B], [A])
    assert (table.overrides(BASE), table.overrides(OTHER)) == ({"bal": "DIRECT"}, {})
    assert table.effective(OTHER) is OTHER
    table.adopt_base(BASE)
    assert table.rules(BASE) == [B]
    assert {name: value for name, value in journal.take().routing.items() if value is not None} == table.fields()
    table.adopt_base(OTHER)
    assert journal.routing == {"base": None, "rules": None, "overrides": None}
    table.adopt_base(BASE)
    assert table.rules(BASE) == [A]
    assert table.fields() == {}


def test_a_core_starts_with_what_is_desired() -> None:
    table = changed(A, B)
    effective = table.effective(BASE)
    assert effective.base_hash == BASE.base_hash
    assert [rule["ruleTag"] for rule in json.loads(render(effective, {}))["routing"]["rules"]] == [
        GUARD_RULE_TAG,
        "a",
        "b",
    ]
    assert table.listed(BASE) == [("BLOCK", GUARD_RULE_TAG), ("DIRECT", "a"), ("", "b")]
    whole = table.compile_all(BASE)
    assert [rule.rule_tag for rule in whole.rule] == [GUARD_RULE_TAG, "a", "b"]
    assert [balancer.tag for balancer in whole.balancing_rule] == ["bal"]
    assert [rule.rule_tag for rule in table.compile_all(BASE, [B]).rule] == [GUARD_RULE_TAG, "b"]
    assert RuleTable(Journal()).effective(BASE) is BASE


@given(rules=st.none() | st.lists(st.sampled_from([A, B]), max_size=3), target=st.sampled_from(["", "DIRECT"]))
def test_what_is_stored_is_restored(rules: list[dict[str, Any]] | None, target: str) -> None:
    table = RuleTable(Journal())
    if rules is not None:
        table.set_rules(BASE, rules)
    table.set_override(BASE, "bal", "BLOCK")
    table.set_override(BASE, "bal", target)
    again = RuleTable(Journal())
    again.restore(table.fields())
    assert again.fields() == table.fields()
    assert (again.rules(BASE), again.overrides(BASE)) == (table.rules(BASE), table.overrides(BASE))


def test_a_newer_node_keeps_what_belongs_to_the_stored_config() -> None:
    journal = Journal()
    again = RuleTable(journal)
    again.restore({**changed(B).fields(), "base": "as an earlier version counted"})
    again.keep_for(BASE)
    assert again.rules(BASE) == [B]
    assert journal.routing["base"] == BASE.base_hash


def test_adding() -> None:
    table = RuleTable(Journal())
    assert table.added(BASE, B, reset=False) == [A, B]
    assert table.added(BASE, B, reset=True) == [B]
    assert table.added(BASE, A, reset=False) is None
    assert changed(B).added(BASE, B, reset=True) is None
    for rule, text in (
        ({**A, "network": ["udp"]}, "duplicate ruleTag 'a'"),
        ({**A, "ruleTag": GUARD_RULE_TAG}, f"ruleTag {GUARD_RULE_TAG!r} is the node's own"),
        ({**B, "balancerTag": "none"}, "rule: unknown balancerTag 'none'; the config has 'bal'"),
        (
            {**A, "ruleTag": "z", "outboundTag": "NO"},
            "rule: unknown outboundTag 'NO'; the config has 'DIRECT', 'BLOCK'",
        ),
    ):
        with pytest.raises(InvalidRequestError, match=text):
            table.added(BASE, rule, reset=False)


def test_there_is_an_end_to_adding() -> None:
    table = changed(A, *({**B, "ruleTag": f"b{number}"} for number in range(ADDED_MAX)))
    with pytest.raises(InvalidRequestError, match="too many routing rules"):
        table.added(BASE, B, reset=False)
    assert table.added(BASE, B, reset=True) == [B]


def test_removing() -> None:
    table = changed(A, B)
    assert table.removed(BASE, "a") == [B]
    with pytest.raises(NotFoundError, match=r"^routing rule 'c' not found\.$"):
        table.removed(BASE, "c")
    with pytest.raises(InvalidRequestError, match="is the node's own and stays"):
        table.removed(BASE, GUARD_RULE_TAG)


def test_a_rule_without_a_tag_gets_one_of_its_content() -> None:
    rule = {name: value for name, value in A.items() if name != "ruleTag"}
    first, second = tagged(rule), tagged(dict(reversed(rule.items())))
    assert first["ruleTag"] == second["ruleTag"]
    assert first["ruleTag"].startswith("pgnode-")
    assert tagged({**rule, "port": "80"})["ruleTag"] != first["ruleTag"]
    assert tagged(A) is A


def test_where_traffic_can_go() -> None:
    reverse = {"portals": [{"tag": "portal", "domain": "x.example"}]}
    assert outbound_tags(base(reverse=reverse)) == ["DIRECT", "BLOCK", "portal"]
    assert balancer_tags(BASE) == ["bal"]
    assert default_outbound(BASE) == "DIRECT"
    assert default_outbound(base(outbounds=[{"protocol": "freedom"}], routing={})) == ""


def test_a_connection_to_be_routed() -> None:
    asked = pb.TestRouteRequest(
        inbound_tag="in", network=" UDP ", target_ip="2001:db8::1", target_port=53, user="u", attributes={"a": "b"}
    )
    context = route_context(asked)
    assert (context.InboundTag, context.Network, context.TargetPort, context.User) == ("in", 3, 53, "u")
    assert len(context.TargetIPs[0]) == 16
    assert dict(context.Attributes) == {"a": "b"}
