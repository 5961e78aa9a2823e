"""From the config that runs to another one: does the core stay, can parts of it be changed, or has it to be a new core? Pure.

Only inbounds, outbounds and routing rules can be changed in a running core, through its API. In doubt the answer is a new
core: what runs has to be what is stored.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.named_files import REST, RULES, Reader
from pgnode.xray.config.protocols import INBOUND_PROTOCOLS, OUTBOUND_PROTOCOLS

_HOT_INBOUNDS: Final = frozenset(name for name, protocol in INBOUND_PROTOCOLS.items() if protocol.hot)
_HOT_OUTBOUNDS: Final = frozenset(name for name, protocol in OUTBOUND_PROTOCOLS.items() if protocol.hot)
#: A key anywhere in an inbound or outbound that ties it to another part of the core: a bridge dials out by itself.
_REVERSE: Final = "reverse"
#: Parts of ``routing`` that the core takes while it runs.
_RULE_KEYS: Final = ("rules", "balancers")
_OBSERVATORIES: Final = ("observatory", "burstObservatory")
#: Sections that are compared entry by entry.
_BY_ENTRY: Final = ("inbounds", "outbounds", "routing")
#: What the node does by itself, or what waits for the next core.
_NO_MATTER: Final = ("log",)

#: The first core whose API lists inbounds as they are encoded and names geo data in rules by file and code.
_SINCE: Final = (26, 4, 0)


class StartStrategy(enum.StrEnum):
    """How a start gets from what runs to what it asks for."""

    SAME = "same core"  # nothing but users
    HOT_CHANGE = "hot change"  # inbounds, outbounds and rules of the running core
    NEW_CORE = "new core"


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """What to change, by tag; what was changed is removed and added."""

    remove_inbounds: tuple[str, ...] = ()
    add_inbounds: tuple[str, ...] = ()
    remove_outbounds: tuple[str, ...] = ()
    add_outbounds: tuple[str, ...] = ()
    #: Rules and balancers are replaced as a whole.
    rules: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """``reason`` is for the log: what differs, or why it cannot be changed in the running core."""

    strategy: StartStrategy
    reason: str
    diff: ConfigDiff = field(default=ConfigDiff())


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the running core can do."""

    #: Inbounds, outbounds and rules can be listed, added and removed.
    hot_changes: bool = True

    @classmethod
    def of(cls, version: str) -> Capabilities:
        """Of a core that calls itself ``version`` ("26.10.10")."""
        numbers = version.split(".")
        known = len(numbers) == len(_SINCE) and all(number.isdigit() for number in numbers)
        return cls(hot_changes=known and tuple(map(int, numbers)) >= _SINCE)


class _NewCoreError(Exception):
    """The text is the reason."""


def decide(old: BaseConfig, new: BaseConfig, capabilities: Capabilities) -> Decision:
    """How to get from ``old``, which runs, to ``new``, which the core accepts as a whole."""
    if old.base_hash == new.base_hash and old.managed_inbounds == new.managed_inbounds:
        return Decision(StartStrategy.SAME, "the base config is the running one")
    try:
        parts, changes = _parts(old, new)
        if not capabilities.hot_changes:
            raise _NewCoreError("this core's API cannot change it")
    except _NewCoreError as reason:
        return Decision(StartStrategy.NEW_CORE, str(reason))
    return Decision(StartStrategy.HOT_CHANGE, "; ".join(changes), parts)


def with_changed_files(
    decision: Decision, changed: Mapping[Path, Iterable[Reader]], new: BaseConfig, capabilities: Capabilities
) -> Decision:
    """Have files that changed since the core read them read again.

    Args:
        decision: How to get to the config otherwise.
        changed: The files, with their readers.
        new: The config that is asked for.
        capabilities: What the running core can do.

    Returns:
        The decision with the readers replaced; a new core where they cannot be.
    """
    if not changed or decision.strategy is StartStrategy.NEW_CORE:
        return decision
    path = next(iter(changed))
    readers = {reader for of_file in changed.values() for reader in of_file}
    inbounds = _by_tag(new)
    tags = [tag for tag in inbounds if (tag, True) in readers]
    try:
        if not capabilities.hot_changes or (REST, False) in readers:
            raise _NewCoreError("only a new core reads it again")
        for tag in tags:
            _check_inbound(tag, *inbounds[tag])
    except _NewCoreError as error:
        return Decision(StartStrategy.NEW_CORE, f"file {path} changed: {error}")
    diff = decision.diff
    diff = ConfigDiff(
        tuple(dict.fromkeys((*diff.remove_inbounds, *tags))),
        tuple(dict.fromkeys((*diff.add_inbounds, *tags))),
        diff.remove_outbounds,
        diff.add_outbounds,
        rules=diff.rules or (RULES, False) in readers,
    )
    told = ", ".join([*(f"inbound {tag!r}" for tag in tags), *(["routing rules"] if (RULES, False) in readers else [])])
    reasons = [f"file {path} changed: {told} read again"]
    if decision.strategy is StartStrategy.HOT_CHANGE:
        reasons.insert(0, decision.reason)
    return Decision(StartStrategy.HOT_CHANGE, "; ".join(reasons), diff)


def why_only_with_a_new_core(inbound: Mapping[str, Any], spec: InboundSpec) -> str:
    """Say why a running core cannot be given this inbound.

    Args:
        inbound: The inbound, as the config has it.
        spec: What the node knows of it.

    Returns:
        The reason; "" where it can.
    """
    try:
        _check_inbound(spec.tag, dict(inbound), spec)
    except _NewCoreError as error:
        return str(error)
    return ""


def _parts(old: BaseConfig, new: BaseConfig) -> tuple[ConfigDiff, list[str]]:
    changes: list[str] = []
    # The node's own "api" follows from the others: those say better what changed.
    for section in sorted({**old.document, **new.document}, key=lambda name: name == "api"):
        if section not in (*_BY_ENTRY, *_NO_MATTER) and old.document.get(section) != new.document.get(section):
            raise _NewCoreError(f"{section} changed")
    remove_inbounds, add_inbounds = _inbounds(old, new, changes)
    remove_outbounds, add_outbounds = _outbounds(old.document, new.document, changes)
    rules = _rules(old.document.get("routing"), new.document.get("routing"))
    if rules:
        changes.append("routing rules changed")
    if not changes:
        changes.append("only the order changed")
    return ConfigDiff(remove_inbounds, add_inbounds, remove_outbounds, add_outbounds, rules), changes


def _inbounds(old: BaseConfig, new: BaseConfig, changes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    before, after = _by_tag(old), _by_tag(new)
    if before.pop("", None) != after.pop("", None):
        raise _NewCoreError("an inbound without a tag changed")
    removed, added = _differing(before, after)
    for tag in removed:
        _, spec = before[tag]
        if spec.protocol not in _HOT_INBOUNDS:
            raise _NewCoreError(f"inbound {tag!r} ({spec.protocol}) changed")
    for tag in added:
        inbound, spec = after[tag]
        _check_inbound(tag, inbound, spec)
        if tag in before and _reality(before[tag][0]) != _reality(inbound):
            raise _NewCoreError(f"REALITY of inbound {tag!r} changed")
    changes += _told("inbound", removed, added)
    return removed, added


#: Tag -> the inbound's JSON and what the node knows of it.
_Inbounds = dict[str, tuple[dict[str, Any], InboundSpec]]


def _by_tag(base: BaseConfig) -> _Inbounds:
    untagged = [inbound for inbound, spec in zip(base.document["inbounds"], base.inbounds, strict=True) if not spec.tag]
    found: _Inbounds = {"": ({"all": untagged}, InboundSpec("", ""))} if untagged else {}
    for inbound, spec in zip(base.document["inbounds"], base.inbounds, strict=True):
        if spec.tag:
            found[spec.tag] = inbound, spec
    return found


def _check_inbound(tag: str, inbound: dict[str, Any], spec: InboundSpec) -> None:
    if spec.protocol not in _HOT_INBOUNDS:
        raise _NewCoreError(f"inbound {tag!r} ({spec.protocol}) changed")
    if not _is_plain_address(spec) or not _are_plain_ports(inbound.get("port"), spec):
        raise _NewCoreError(f"only the core can tell where inbound {tag!r} listens")
    if _holds_key(inbound, _REVERSE):
        raise _NewCoreError(f"inbound {tag!r} is a reverse portal")


def _is_plain_address(spec: InboundSpec) -> bool:
    if spec.listen in ("", "localhost") or spec.is_unix:
        return True
    try:
        ipaddress.ip_address(spec.listen)
    except ValueError:
        return False
    return True


def _are_plain_ports(value: object, spec: InboundSpec) -> bool:
    """Whether ``spec.ports`` says all of what the config's ``port`` says."""
    if spec.is_unix:
        return True
    parts = value.split(",") if isinstance(value, str) else [value]
    return len(spec.ports) == len(parts) and bool(spec.ports)


def _reality(inbound: dict[str, Any]) -> object:
    stream = inbound.get("streamSettings")
    return stream.get("realitySettings") if isinstance(stream, dict) else None


def _outbounds(old: dict[str, Any], new: dict[str, Any], changes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    old_list, new_list = old.get("outbounds") or [], new.get("outbounds") or []
    if old_list[:1] != new_list[:1]:
        raise _NewCoreError("the first outbound changed")
    before, after = _outbounds_by_tag(old_list[1:]), _outbounds_by_tag(new_list[1:])
    if before.pop("", None) != after.pop("", None):
        raise _NewCoreError("an outbound without a tag changed")
    removed, added = _differing(before, after)
    for tag, outbound in [*((tag, before[tag]) for tag in removed), *((tag, after[tag]) for tag in added)]:
        protocol = str(outbound.get("protocol")).lower()
        if protocol not in _HOT_OUTBOUNDS:
            raise _NewCoreError(f"outbound {tag!r} ({protocol}) changed")
        if _holds_key(outbound, _REVERSE):
            raise _NewCoreError(f"outbound {tag!r} is a reverse bridge")
    observing = next((name for name in _OBSERVATORIES if new.get(name) is not None), None)
    if (removed or added) and observing is not None:
        raise _NewCoreError(f"outbounds changed under the {observing}")
    changes += _told("outbound", removed, added)
    return removed, added


def _outbounds_by_tag(outbounds: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for outbound in outbounds:
        tag = outbound.get("tag")
        if isinstance(tag, str) and tag:
            found[tag] = outbound
        else:
            found.setdefault("", []).append(outbound)
    return found


def _rules(old: object, new: object) -> bool:
    """Whether the rules have to be replaced."""
    if old == new:
        return False
    if not isinstance(old, dict) or not isinstance(new, dict):
        raise _NewCoreError("routing was added or removed")
    for key in {**old, **new}:
        if key not in _RULE_KEYS and old.get(key) != new.get(key):
            raise _NewCoreError(f"routing.{key} changed")
    return True


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(to be removed, to be added), by tag; what changed is in both."""
    removed = tuple(tag for tag in before if before[tag] != after.get(tag))
    return removed, tuple(tag for tag in after if after[tag] != before.get(tag))


def _told(what: str, removed: tuple[str, ...], added: tuple[str, ...]) -> list[str]:
    told = [f"{what} {tag!r} {'changed' if tag in added else 'removed'}" for tag in removed]
    return told + [f"{what} {tag!r} added" for tag in added if tag not in removed]


def _holds_key(value: object, key: str) -> bool:
    if isinstance(value, dict):
        return any(name.lower() == key or _holds_key(item, key) for name, item in value.items())
    return isinstance(value, list) and any(_holds_key(item, key) for item in value)
