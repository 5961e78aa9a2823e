"""Rules and balancers from JSON to messages: what is read, and what a caller hears of what cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import InvalidRequestError
from pgnode.xray.proto import router_pb2
from pgnode.xray.rules.compile import compile_balancer, compile_routing, compile_rule, needs_trial, parse_rule

GOOD = {"outboundTag": "out", "domain": ["a.example"]}


def refusal(rule: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        parse_rule(rule if isinstance(rule, str) else json.dumps(rule))
    return caught.value.text


def test_every_field_is_read() -> None:
    rule = {
        "type": "field",
        "domainMatcher": "hybrid",
        "ruleTag": "all",
        "outboundTag": "out",
        "domain": [
            "full:a.example",
            "domain:b.example",
            "keyword:c",
            "regexp:^d",
            "plain",
            "dotless:x",
            "geosite:CN@Ads",
        ],
        "ip": ["10.0.0.0/8", "2001:db8::1", "geoip:!us", "!ext:own.dat:Code"],
        "port": "80,1000-2000",
        "network": "tcp,udp",
        "sourceIP": ["192.0.2.1"],
        "sourcePort": 53,
        "user": ["alice@node"],
        "vlessRoute": "0-7",
        "inboundTag": "in",
        "protocol": ["http", "tls"],
        "attrs": {":method": "GET"},
        "localIP": ["127.0.0.1"],
        "localPort": "443",
        "process": ["curl"],
        "localOS": ["linux"],
        "webhook": {"url": "https://hook.example/x", "deduplication": 30, "headers": {"X-Key": "v"}},
    }
    expected = text_format.Parse(
        """
        tag: "out" rule_tag: "all"
        domain { custom { type: Full value: "a.example" } }
        domain { custom { type: Domain value: "b.example" } }
        domain { custom { type: Substr value: "c" } }
        domain { custom { type: Regex value: "^d" } }
        domain { custom { type: Substr value: "plain" } }
        domain { custom { type: Regex value: "^[^.]*x[^.]*$" } }
        domain { geosite { file: "geosite.dat" code: "CN" attrs: "ads" } }
        ip { custom { cidr { ip: "\\n\\000\\000\\000" prefix: 8 } } }
        ip { custom { cidr { ip: " \\001\\r\\270\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\001" prefix: 128 } } }
        ip { geoip { file: "geoip.dat" code: "US" reverse_match: true } }
        ip { geoip { file: "own.dat" code: "CODE" reverse_match: true } }
        port_list { range { From: 80 To: 80 } range { From: 1000 To: 2000 } }
        networks: TCP networks: UDP
        source_ip { custom { cidr { ip: "\\300\\000\\002\\001" prefix: 32 } } }
        source_port_list { range { From: 53 To: 53 } }
        user_email: "alice@node" vless_route_list { range { From: 0 To: 7 } }
        inbound_tag: "in" protocol: "http" protocol: "tls"
        attributes { key: ":method" value: "GET" }
        local_ip { custom { cidr { ip: "\\177\\000\\000\\001" prefix: 32 } } }
        local_port_list { range { From: 443 To: 443 } }
        process: "curl" local_os: "linux"
        webhook { url: "https://hook.example/x" deduplication: 30 headers { key: "X-Key" value: "v" } }
        """,
        router_pb2.RoutingRule(),
    )
    assert compile_rule(parse_rule(json.dumps(rule))) == expected


def test_fields_are_known_in_any_case_and_the_newer_name_wins() -> None:
    rule = parse_rule('{"OUTBOUNDTAG": "out", "Source": "192.0.2.1", "sourceip": ["192.0.2.2"], "ruletag": "x"}')
    assert rule["ruleTag"] == "x"
    assert compile_rule(rule).source_ip[0].custom.cidr.ip == bytes([192, 0, 2, 2])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"domian": ["x"]}, "rule: unknown field 'domian'; known are ruleTag, outboundTag"),
        ({"outboundTag": None}, "rule has neither outboundTag nor balancerTag: it leads nowhere"),
        ({"balancerTag": "b"}, "rule has both outboundTag and balancerTag"),
        ({"domain": None}, "rule has no condition: give one of domain"),
        ({"attrs": {}, "domain": None}, "rule has no condition"),
        ({"type": "other"}, 'rule: type must be "field", not "other"'),
        ({"ruleTag": 5}, "rule: ruleTag must be a string, not a number"),
        ({"domain": {}}, "rule: domain must be a list of strings or a string, not an object"),
        ({"domain": ["x", 5]}, "rule: domain must be a list of strings, not a number"),
        ({"domain": []}, "rule: domain is empty"),
        ({"domain": "a,,b"}, "rule: domain has an empty entry"),
        ({"domain": ["\ud800"]}, "rule: domain holds half a surrogate pair"),
        ({"domain": ["dotless:a.b"]}, "rule: domain: 'dotless:a.b' is to be found in names without dots"),
        ({"domain": ["geosite:"]}, "rule: domain: 'geosite:' has an empty code"),
        ({"domain": ["geosite:cn@"]}, "rule: domain: 'geosite:cn@' has an empty code or attribute"),
        ({"domain": ["ext:cn"]}, "rule: domain: 'ext:cn' must name a file and a code"),
        ({"ip": ["nonsense"]}, "rule: ip: 'nonsense' is neither an address, a network nor geo data"),
        ({"ip": ["10.0.0.0/33"]}, "rule: ip: '10.0.0.0/33' has no prefix length from 0 to 32"),
        ({"ip": ["10.0.0.0/-1"]}, "rule: ip: '10.0.0.0/-1' has no prefix length"),
        ({"ip": ["010.0.0.1"]}, "rule: ip: '010.0.0.1' is neither"),
        ({"ip": ["fe80::1%eth0"]}, "rule: ip: 'fe80::1%eth0' has a zone"),
        ({"ip": ["geoip:!"]}, "rule: ip: 'geoip:!' has an empty code"),
        ({"source": ["x"]}, "rule: source: 'x' is neither"),
        ({"port": "80-70"}, "rule: port: the range '80-70' runs backwards"),
        ({"port": 65536}, "rule: port: '65536' is no port (1 to 65535)"),
        ({"port": 0}, "rule: port: '0' is no port"),
        ({"port": "http"}, "rule: port: 'http' is no port"),
        ({"port": "env:PORT"}, "rule: port: 'env:PORT' is no port"),
        ({"port": " , "}, "rule: port is empty"),
        ({"port": [80]}, "rule: port must be a number or a string"),
        ({"port": True}, "rule: port must be a number or a string"),
        ({"port": 1.5}, "rule: port must be a number or a string"),
        ({"network": "sctp"}, "rule: network: unknown network 'sctp'; known are tcp, udp, unix"),
        ({"attrs": {"a": 1}}, "rule: attrs.a must be a string, not a number"),
        ({"attrs": "x"}, "rule: attrs must be an object, not a string"),
        ({"webhook": {"headers": {}}}, "rule: webhook has no url"),
        ({"webhook": {"url": "x", "key": 1}}, "rule: webhook: unknown field 'key'"),
        ({"webhook": {"url": "x", "deduplication": -1}}, "rule: webhook: deduplication must be whole seconds"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], text: str) -> None:
    assert refusal({**GOOD, **change}).startswith(text)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', '{"a": NaN}', "[" * 100_000, '{"port": ' + "9" * 5000 + "}"]
)
def test_what_is_no_rule_at_all_is_refused(text: str) -> None:
    assert refusal(text).startswith("rule ")


def test_a_rule_has_an_end() -> None:
    assert refusal('{"outboundTag": "o", "domain": ["' + "x" * 2**20 + '"]}').startswith("rule is too long: 10486")


def test_a_config_that_the_core_takes_is_compiled_as_the_core_does() -> None:
    config = compile_routing(
        {
            "domainStrategy": "IPIfNonMatch",
            "rules": [
                {"outboundTag": "a", "port": 0, "network": "quic", "extra": 1},
                {"balancerTag": "b", "port": "9-3"},
            ],
            "balancers": [{"tag": "b", "selector": "out-"}],
        }
    )
    assert config.domain_strategy == router_pb2.Config.IpIfNonMatch
    first, second = config.rule
    assert first.HasField("port_list")
    assert not first.port_list.range
    assert first.networks == [0]
    assert second.balancing_tag == "b"
    assert (config.balancing_rule[0].strategy, list(config.balancing_rule[0].outbound_selector)) == ("random", ["out-"])


def test_the_settings_of_a_least_load_balancer_are_always_there() -> None:
    settings = {
        "costs": [{"regexp": True, "match": "^out", "value": 1.5}],
        "baselines": ["1s", "0s", "1m0.5s"],
        "expected": -3,
        "maxRTT": "250ms",
        "tolerance": 7,
    }
    full = compile_balancer({"tag": "b", "selector": ["o"], "strategy": {"type": "leastLoad", "settings": settings}})
    found = router_pb2.StrategyLeastLoadConfig.FromString(full.strategy_settings.value)
    assert (list(found.baselines), found.maxRTT, found.expected, found.tolerance) == (
        [10**9, 60_500_000_000],
        25 * 10**7,
        0,
        1,
    )
    assert (found.costs[0].regexp, found.costs[0].match, found.costs[0].value) == (True, "^out", 1.5)
    bare = compile_balancer({"tag": "b", "selector": ["o"], "strategy": {"type": "leastload"}})
    assert bare.strategy_settings.type == "xray.app.router.StrategyLeastLoadConfig"


@pytest.mark.parametrize(
    ("balancer", "text"),
    [
        ({"selector": ["x"]}, "balancer needs a tag and a selector"),
        ({"tag": "b"}, "balancer needs a tag and a selector"),
        ({"tag": "b", "selector": ["x"], "strategy": {"type": "best"}}, "balancer: unknown strategy 'best'"),
        (
            {"tag": "b", "selector": ["x"], "strategy": {"type": "leastLoad", "settings": {"maxRTT": "soon"}}},
            "balancer: strategy: settings: maxRTT: 'soon' is no duration",
        ),
    ],
)
def test_a_balancer_that_cannot_be_is_refused(balancer: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        compile_balancer(balancer)
    assert caught.value.text.startswith(text)


def test_only_regular_expressions_of_attributes_need_a_trial() -> None:
    assert needs_trial(parse_rule('{"outboundTag": "o", "attrs": {"a": "("}}'))
    assert not needs_trial(parse_rule('{"outboundTag": "o", "domain": ["regexp:("]}'))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = (
    "outboundTag",
    "balancerTag",
    "domain",
    "ip",
    "port",
    "network",
    "source",
    "attrs",
    "webhook",
    "user",
    "vlessRoute",
)


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON))
def test_whatever_comes_is_a_rule_or_a_clear_refusal(rule: dict[str, Any]) -> None:
    """No other exception, and what is taken has a message of its own."""
    try:
        parsed = parse_rule(json.dumps(rule))
    except InvalidRequestError as error:
        text = error.text
    else:
        text = "rule" if compile_rule(parsed).WhichOneof("target_tag") else "a rule that leads nowhere"
        assert parse_rule(json.dumps(parsed)) == parsed
    assert text.startswith("rule")


def test_a_rule_is_written_in_one_way() -> None:
    rule = '{"OutboundTag": "o", "domain": " a , b ", "port": 80, "vlessRoute": "007, 1-2", "network": "TCP", "user": null}'
    assert parse_rule(rule) == {
        "outboundTag": "o",
        "domain": ["a", "b"],
        "port": "80",
        "vlessRoute": "7,1-2",
        "network": ["TCP"],
    }
