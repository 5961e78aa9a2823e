"""Routing rules and balancers: from the JSON of a config to the messages of a running core.

The core compiles JSON only when it starts; its API takes messages (``xray.app.router.Config``). This is the core's own
translation, written again for Xray 26.10.10: every field that this core knows, as it understands it. Geo data are named in
the messages by file and code, the core looks them up itself. tests/integration/xray/test_routing_core.py gives the same rules
to a core both ways and compares where connections go.

A message that the core cannot have made itself may end it (a Go panic): an address rule without an address, or a balancer of
type leastLoad without settings. What is made here never does, with one exception that only Go can check: the regular
expressions in ``attrs`` (:func:`needs_trial`). Everything here is pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NoReturn

from pgnode.errors import InvalidRequestError
from pgnode.wire.json_depth import is_too_deep
from pgnode.wire.texts import shown
from pgnode.xray.config.inbounds import json_type
from pgnode.xray.proto import router_pb2, typed_message_pb2
from pgnode.xray.rules.field_reader import FieldReader, folded
from pgnode.xray.rules.matchers import address_rule, domain_rule, network

#: A rule of a config: a JSON object.
Rule = dict[str, Any]

#: Conditions that are lists of strings, or one string with commas; ports; and the one that is an object.
_LISTS: Final = (
    "domain",
    "domains",
    "ip",
    "network",
    "sourceIP",
    "source",
    "user",
    "inboundTag",
    "protocol",
    "localIP",
    "process",
    "localOS",
)
_PORTS: Final = ("port", "sourcePort", "localPort", "vlessRoute")
#: One of these at least must be there, or the core refuses the rule.
_CONDITIONS: Final = (*_LISTS, *_PORTS, "attrs")
#: Written in many configs, and ignored by today's cores: ``type`` is always "field".
_IGNORED: Final = ("type", "domainMatcher")
_KNOWN: Final = ("ruleTag", "outboundTag", "balancerTag", *_CONDITIONS, "webhook", *_IGNORED)

_STRATEGIES: Final = ("random", "leastping", "roundrobin", "leastload")
_DOMAIN_STRATEGIES: Final = {
    "ipifnonmatch": router_pb2.Config.IpIfNonMatch,
    "ipondemand": router_pb2.Config.IpOnDemand,
}

#: Nanoseconds, by the units of Go's time.ParseDuration.
_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+\Z")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")

_UINT32_MAX: Final = 2**32 - 1

#: Characters of one rule: far beyond any list of domains that is kept by hand, well below what the core's API takes.
RULE_MAX_CHARACTERS: Final = 1024 * 1024


def parse_rule(text: str) -> Rule:
    """Read one rule as a caller sends it: JSON, its fields known and of the right types, with a target and a condition.

    Returns it as it would usually be written, which the core reads from a config just as :func:`compile_rule` does: fields in
    their own spelling, lists as lists, ports as strings. Raises InvalidRequestError; the text begins with what is wrong.
    """
    if len(text) > RULE_MAX_CHARACTERS:
        raise InvalidRequestError(
            f"rule is too long: {len(text)} characters, {RULE_MAX_CHARACTERS} are allowed; long lists belong into a geo file"
        )
    try:
        rule = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise InvalidRequestError("rule is not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise InvalidRequestError(f"rule is not valid JSON: {error}") from None
    if is_too_deep(rule):
        raise InvalidRequestError("rule is not valid JSON: nested too deeply")
    if not isinstance(rule, dict):
        raise InvalidRequestError(f"rule must be a JSON object, not {json_type(rule)}")
    known = folded_rule(rule)
    unknown = sorted(known.keys() - set(_KNOWN))
    if unknown:
        raise InvalidRequestError(f"rule: unknown field {shown(unknown[0])}; known are {', '.join(_KNOWN)}")
    kind = known.get("type")
    if kind is not None and kind != "field":
        raise InvalidRequestError(f'rule: type must be "field", not {json.dumps(kind)[:40]}')
    compile_rule(known, strict=True)
    known = _usual(known)
    if not any(known.get(name) for name in _CONDITIONS):
        raise InvalidRequestError(f"rule has no condition: give one of {', '.join(_CONDITIONS)}")
    return known


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def folded_rule(rule: Mapping[str, Any]) -> Rule:
    """Write the fields that the core knows in their usual spelling; of the same field twice the later one wins."""
    return folded(rule, *_KNOWN)


def _usual(rule: Rule) -> Rule:
    """Write a rule that was found good so that there are no two ways to write the same."""
    reader = FieldReader(rule, "rule", strict=True)
    usual = {name: value for name, value in rule.items() if value is not None}
    for name in usual.keys() & set(_LISTS):
        usual[name] = reader.texts(name)
    for name in usual.keys() & set(_PORTS):
        ports = reader.ports(name)
        usual[name] = ",".join(_range_text(found.From, found.To) for found in ports.range) if ports else ""
    return usual


def _range_text(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def needs_trial(rule: Mapping[str, Any]) -> bool:
    """Whether the rule, given to a running core, might end it: it has regular expressions that the core must compile."""
    return bool(rule.get("attrs"))


def compile_routing(routing: Mapping[str, Any] | None, where: str = "routing") -> router_pb2.Config:
    """Compile the ``routing`` part of a config that the core has accepted, or would. Raises InvalidRequestError."""
    section = routing or {}
    strategy = section.get("domainStrategy")
    return router_pb2.Config(
        domain_strategy=_DOMAIN_STRATEGIES.get(str(strategy or "").lower(), router_pb2.Config.AsIs),
        rule=[
            compile_rule(folded_rule(rule), where=f"{where}.rules[{index}]")
            for index, rule in enumerate(section.get("rules") or ())
        ],
        balancing_rule=[
            compile_balancer(balancer, where=f"{where}.balancers[{index}]")
            for index, balancer in enumerate(section.get("balancers") or ())
        ],
    )


def compile_rule(rule: Mapping[str, Any], *, strict: bool = False, where: str = "rule") -> router_pb2.RoutingRule:
    """Make the message of one rule, its fields in their usual spelling.

    ``strict`` also refuses what the core takes and what can never match: empty entries, unknown networks, ports that run
    backwards. ``where`` begins the text of every error. Raises InvalidRequestError.
    """
    reader = FieldReader(rule, where, strict)
    source = "sourceIP" if rule.get("sourceIP") is not None else "source"
    # Of the two spellings the core lets this one win.
    domain = "domains" if rule.get("domains") is not None else "domain"
    message = router_pb2.RoutingRule(
        rule_tag=reader.name("ruleTag"),
        domain=[domain_rule(entry, reader.at(domain)) for entry in reader.texts(domain)],
        ip=[address_rule(entry, reader.at("ip")) for entry in reader.texts("ip")],
        port_list=reader.ports("port"),
        networks=[network(entry, reader.at("network"), strict) for entry in reader.texts("network")],
        source_ip=[address_rule(entry, reader.at(source)) for entry in reader.texts(source)],
        source_port_list=reader.ports("sourcePort"),
        user_email=reader.texts("user"),
        inbound_tag=reader.texts("inboundTag"),
        protocol=reader.texts("protocol"),
        attributes=reader.text_map("attrs"),
        local_ip=[address_rule(entry, reader.at("localIP")) for entry in reader.texts("localIP")],
        local_port_list=reader.ports("localPort"),
        vless_route_list=reader.ports("vlessRoute"),
        process=reader.texts("process"),
        webhook=_webhook(reader.section("webhook"), reader.at("webhook"), strict),
        local_os=reader.texts("localOS"),
    )
    outbound, balancer = reader.name("outboundTag"), reader.name("balancerTag")
    if outbound:
        if strict and balancer:
            raise InvalidRequestError(f"{where} has both outboundTag and balancerTag: give one of them")
        message.tag = outbound
    elif balancer:
        message.balancing_tag = balancer
    else:
        raise InvalidRequestError(f"{where} has neither outboundTag nor balancerTag: it leads nowhere")
    return message


def compile_balancer(balancer: Mapping[str, Any], where: str = "balancer") -> router_pb2.BalancingRule:
    """Make the message of one balancer. Raises InvalidRequestError."""
    reader = FieldReader(folded(balancer, "tag", "selector", "strategy", "fallbackTag"), where, strict=False)
    strategy = FieldReader(folded(reader.section("strategy"), "type", "settings"), reader.at("strategy"), strict=False)
    kind = strategy.text("type").lower() or "random"
    if kind not in _STRATEGIES:
        raise InvalidRequestError(f"{where}: unknown strategy {shown(kind)}; known are {', '.join(_STRATEGIES)}")
    message = router_pb2.BalancingRule(
        tag=reader.text("tag"),
        outbound_selector=reader.texts("selector"),
        strategy=kind,
        fallback_tag=reader.text("fallbackTag"),
    )
    if not message.tag or not message.outbound_selector:
        raise InvalidRequestError(f"{where} needs a tag and a selector")
    if kind == "leastload":
        settings = _least_load(strategy.section("settings"), strategy.at("settings"))
        message.strategy_settings.CopyFrom(
            typed_message_pb2.TypedMessage(type=settings.DESCRIPTOR.full_name, value=settings.SerializeToString())
        )
    return message


def _least_load(settings: Mapping[str, Any], where: str) -> router_pb2.StrategyLeastLoadConfig:
    reader = FieldReader(folded(settings, "costs", "baselines", "expected", "maxRTT", "tolerance"), where, strict=False)
    costs = reader.items("costs", dict, "objects")
    baselines = [_nanoseconds(entry, reader.at("baselines")) for entry in reader.items("baselines", str, "durations")]
    return router_pb2.StrategyLeastLoadConfig(
        costs=[_weight(cost, reader.at("costs")) for cost in costs],
        baselines=[value for value in baselines if value > 0],
        expected=min(max(int(reader.number("expected")), 0), 2**31 - 1),
        maxRTT=max(_nanoseconds(reader.text("maxRTT") or "0s", reader.at("maxRTT")), 0),
        tolerance=min(max(reader.number("tolerance"), 0.0), 1.0),
    )


def _weight(cost: Mapping[str, Any], where: str) -> router_pb2.StrategyWeight:
    reader = FieldReader(folded(cost, "regexp", "match", "value"), where, strict=False)
    return router_pb2.StrategyWeight(
        regexp=cost.get("regexp") is True, match=reader.text("match"), value=reader.number("value")
    )


def _nanoseconds(text: str, where: str) -> int:
    """Read a duration as Go writes it: "1m30s", "250ms", "0"."""
    if text in ("0", "+0", "-0"):
        return 0
    if not _DURATION.match(text):
        raise InvalidRequestError(f'{where}: {shown(text)} is no duration such as "250ms" or "1m30s"')
    total = sum(Decimal(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    return min(int(total), 2**63 - 1) * (-1 if text.startswith("-") else 1)


def _webhook(part: Mapping[str, Any], where: str, strict: bool) -> router_pb2.WebhookConfig | None:
    known = folded(part, "url", "deduplication", "headers")
    reader = FieldReader(known, where, strict)
    unknown = sorted(known.keys() - {"url", "deduplication", "headers"})
    if strict and unknown:
        raise InvalidRequestError(f"{where}: unknown field {shown(unknown[0])}; known are url, deduplication, headers")
    seconds = reader.number("deduplication")
    if not isinstance(seconds, int) or not 0 <= seconds <= _UINT32_MAX:
        raise InvalidRequestError(f"{where}: deduplication must be whole seconds, 0 or more")
    headers = reader.text_map("headers")
    url = reader.text("url")
    if not url:
        if strict and part:
            raise InvalidRequestError(f"{where} has no url")
        return None
    return router_pb2.WebhookConfig(url=url, deduplication=seconds, headers=headers)
