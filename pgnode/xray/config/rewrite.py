"""The parts of a panel's config that the node owns: API, statistics, policy, log paths, rules, observatory.

Every function changes the parsed config in place and leaves what it does not own as it came, order of keys included.
Each is idempotent: a config that was rewritten before comes out the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pgnode.errors import StartFailedError
from pgnode.xray.config import geo_refs as geo
from pgnode.xray.config.inbounds import json_type
from pgnode.xray.config.protocols import OUTBOUND_PROTOCOLS

#: Tag of the core's API in the config; an underscore is added while an outbound has the same name.
API_TAG: Final = "PG_NODE_API"
API_SERVICES: Final = ("HandlerService", "LoggerService", "StatsService", "RoutingService")
#: Only with something observed: without an observatory the core refuses a config that asks for this service.
OBSERVATORY_SERVICE: Final = "ObservatoryService"
_OBSERVATORIES: Final = ("observatory", "burstObservatory")
#: Inbound through which panels that talk to the core themselves reach its API. Not needed here, and dropped.
PANEL_API_INBOUND: Final = "API_INBOUND"

GUARD_RULE_TAG: Final = "PG_NODE_MALFORMED_DOMAIN_GUARD"
#: Names longer than DNS can carry: over 253 characters in all, or a label over 63. Go's RE2 allows counts up to 1,000.
GUARD_DOMAINS: Final = ("regexp:(?s)^.{254}", r"regexp:(^|\.)[^.]{64}")

#: Switches of ``policy.system``: whether inbounds are counted.
INBOUND_COUNTERS: Final = ("statsInboundUplink", "statsInboundDownlink")

_BLACKHOLES: Final = frozenset(name for name, protocol in OUTBOUND_PROTOCOLS.items() if protocol.drops)
_UNOBSERVABLE: Final = frozenset(name for name, protocol in OUTBOUND_PROTOCOLS.items() if not protocol.observable)

#: Top-level keys the node reads or writes. The core takes keys in any case ("INBOUNDS"), so they are brought to this one.
_TOP_LEVEL_KEYS: Final = (
    "log",
    "api",
    "stats",
    "policy",
    "dns",
    "routing",
    "inbounds",
    "outbounds",
    "observatory",
    "burstObservatory",
    "metrics",
)
_INBOUND_KEYS: Final = ("tag", "protocol", "listen", "port", "settings", "streamSettings", "sniffing")
_SETTINGS_KEYS: Final = (
    "clients",
    "users",
    "peers",
    "method",
    "password",
    "network",
    "flow",
    "decryption",
    "udp",
    "name",
    "secretKey",
    "preSharedKey",
)
_STREAM_KEYS: Final = ("network", "method", "security", "tlsSettings", "rawSettings", "tcpSettings")
_OUTBOUND_KEYS: Final = ("tag", "protocol")
_RULE_KEYS: Final = ("ruleTag", "outboundTag", "inboundTag", "ip", "source", "sourceIP", "localIP")
_LOG_KEYS: Final = ("access", "error")


def section(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the object ``document[name]``, None when there is none; raises StartFailedError when it is something else."""
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise StartFailedError(f"config: {name} must be an object, not {json_type(value)}")
    return value


def objects(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the list of objects ``document[name]``, empty when there is none; raises StartFailedError for anything else."""
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise StartFailedError(f"config: {name} must be a list, not {json_type(value)}")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise StartFailedError(f"config: {name}[{index}] must be an object, not {json_type(item)}")
    return value


def canonical_keys(document: dict[str, Any]) -> None:
    """Write the keys that the node reads the usual way, wherever they came in another case."""
    _fold(document, _TOP_LEVEL_KEYS)
    for inbound in objects(document, "inbounds"):
        _fold(inbound, _INBOUND_KEYS)
        _fold(inbound.get("settings"), _SETTINGS_KEYS)
        _fold(inbound.get("streamSettings"), _STREAM_KEYS)
    for outbound in objects(document, "outbounds"):
        _fold(outbound, _OUTBOUND_KEYS)
    routing = section(document, "routing")
    if routing is not None:
        _fold(routing, ("rules", "balancers", "domainStrategy"))
        for rule in _rules(routing):
            _fold(rule, _RULE_KEYS)
    _fold(document.get("log"), (*_LOG_KEYS, "loglevel"))
    _fold(document.get("api"), ("tag",))
    _fold(document.get("metrics"), ("tag", "listen"))


def _fold(part: object, names: Iterable[str]) -> None:
    if not isinstance(part, dict):
        return
    wanted = {name.lower(): name for name in names}
    if all(wanted.get(key.lower(), key) == key for key in part):
        return
    # The same field twice in different cases: the core lets the later one win, as does this.
    items = [(wanted.get(key.lower(), key), value) for key, value in part.items()]
    part.clear()
    part.update(items)


def set_api(document: dict[str, Any], api_socket: str) -> None:
    """Give the core an API on ``api_socket`` and drop every way of the panel's own to it."""
    panel_api = section(document, "api")
    outbound_tags = set(map(_tag, objects(document, "outbounds"))) - {""}
    tag = API_TAG
    while tag in outbound_tags:
        tag += "_"
    # A rule that names a real outbound is none of the API's, whatever the API is called.
    api_tags = {_tag(panel_api or {}), tag} - outbound_tags - {""}
    inbounds = objects(document, "inbounds")
    if any(inbound.get("tag") == PANEL_API_INBOUND for inbound in inbounds):
        document["inbounds"] = [inbound for inbound in inbounds if inbound.get("tag") != PANEL_API_INBOUND]
    routing = section(document, "routing")
    if routing is not None and "rules" in routing:
        routing["rules"] = [rule for rule in _rules(routing) if not _is_api_rule(rule, api_tags)]
    services = list(API_SERVICES)
    if any(section(document, name) is not None for name in _OBSERVATORIES):
        services.append(OBSERVATORY_SERVICE)
    document["api"] = {"tag": tag, "listen": api_socket, "services": services}


def _is_api_rule(rule: dict[str, Any], api_tags: set[str]) -> bool:
    target = rule.get("outboundTag")
    if isinstance(target, str) and target in api_tags:
        return True
    return rule.get("inboundTag") in (PANEL_API_INBOUND, [PANEL_API_INBOUND])


def set_statistics(document: dict[str, Any]) -> None:
    """Switch counters of users and outbounds on, and online addresses unless the config says otherwise.

    Counters of inbounds stay as the config has them: see :mod:`pgnode.xray.config.inbound_counters`.
    """
    if not isinstance(document.get("stats"), dict):
        document["stats"] = {}
    policy = _subsection(document, "policy", "policy")
    levels = _subsection(policy, "levels", "policy.levels")
    level = _subsection(levels, "0", "policy.levels.0")
    level["statsUserUplink"] = True
    level["statsUserDownlink"] = True
    if level.get("statsUserOnline") is None:
        level["statsUserOnline"] = True
    system = _subsection(policy, "system", "policy.system")
    _fold(system, INBOUND_COUNTERS)
    system["statsOutboundUplink"] = True
    system["statsOutboundDownlink"] = True


def _subsection(parent: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    _fold(parent, (name,))
    value = parent.get(name)
    if value is None:
        value = parent[name] = {}
    if not isinstance(value, dict):
        raise StartFailedError(f"config: {path} must be an object, not {json_type(value)}")
    return value


def take_log_paths(document: dict[str, Any]) -> tuple[str | None, str | None]:
    """Take file paths out of ``log`` and return (access, error), None where there was none.

    The core then logs to its output ("" in both fields); "none" stays and means no such log, as does loglevel "none".
    """
    log = section(document, "log")
    if log is None:
        return None, None
    paths: list[str | None] = []
    for field in _LOG_KEYS:
        value = log.get(field)
        if value is not None and not isinstance(value, str):
            raise StartFailedError(f"config: log.{field} must be a string, not {json_type(value)}")
        if value and value != "none":
            log[field] = ""
            paths.append(value)
        else:
            paths.append(None)
    level = log.get("loglevel")
    if level is not None and not isinstance(level, str):
        raise StartFailedError(f"config: log.loglevel must be a string, not {json_type(level)}")
    return paths[0], paths[1]


def set_rules(document: dict[str, Any], warnings: list[str]) -> None:
    """Put plain private networks into all rules, and the guard against malformed domains in front of them.

    Where there was no ``routing`` there is one afterwards: a core without it has no router that could take rules later.
    """
    outbounds = objects(document, "outbounds")
    routing = section(document, "routing")
    rules = [rule for rule in _rules(routing or {}) if rule.get("ruleTag") != GUARD_RULE_TAG]
    for rule in rules:
        geo.replace_private(rule)
    blackholes = [outbound for outbound in outbounds if _protocol(outbound) in _BLACKHOLES]
    tag = next((tag for tag in map(_tag, blackholes) if tag), "")
    if tag:
        guard = {"type": "field", "domain": list(GUARD_DOMAINS), "outboundTag": tag, "ruleTag": GUARD_RULE_TAG}
        rules.insert(0, guard)
    elif blackholes:
        warnings.append("the blackhole outbound has no tag: malformed domains are not caught")
    if routing is None:
        routing = document["routing"] = {}
    if rules or "rules" in routing:
        routing["rules"] = rules


def _rules(routing: dict[str, Any]) -> list[dict[str, Any]]:
    value = routing.get("rules")
    if value is None:
        return []
    if not isinstance(value, list):
        raise StartFailedError(f"config: routing.rules must be a list, not {json_type(value)}")
    for index, rule in enumerate(value):
        if not isinstance(rule, dict):
            raise StartFailedError(f"config: routing.rules[{index}] must be an object, not {json_type(rule)}")
    return value


def limit_observatories(document: dict[str, Any], warnings: list[str]) -> frozenset[str]:
    """Take blackhole, dns and loopback outbounds out of what is observed; returns their tags.

    A selector is a prefix of tags. One that reaches such an outbound is replaced by the other tags it reaches, which
    are prefixes again; one that is itself the tag of an outbound to be observed stays, there is no narrower way to say it.
    """
    outbounds = objects(document, "outbounds")
    tags = [tag for tag in map(_tag, outbounds) if tag]
    excluded = frozenset(_tag(outbound) for outbound in outbounds if _protocol(outbound) in _UNOBSERVABLE)
    excluded -= {""}
    allowed = [tag for tag in tags if tag not in excluded]
    for name in _OBSERVATORIES:
        observatory = section(document, name)
        if observatory is None:
            continue
        _fold(observatory, ("subjectSelector",))
        selectors = observatory.get("subjectSelector")
        if not isinstance(selectors, list) or not all(isinstance(selector, str) for selector in selectors):
            continue
        kept: dict[str, None] = {}
        for selector in selectors:
            reached = sorted(tag for tag in excluded if tag.startswith(selector))
            if not reached:
                kept[selector] = None
            elif selector in allowed:
                kept[selector] = None
                warnings.append(f"{name}: selector {selector!r} also reaches {reached[0]!r}; its latency is left out")
            else:
                kept.update(dict.fromkeys(tag for tag in allowed if tag.startswith(selector)))
        observatory["subjectSelector"] = list(kept)
    return excluded


def _tag(part: dict[str, Any]) -> str:
    tag = part.get("tag")
    return tag if isinstance(tag, str) else ""


def _protocol(outbound: dict[str, Any]) -> str:
    protocol = outbound.get("protocol")
    return protocol.lower() if isinstance(protocol, str) else ""
