"""A config in pieces that can be put to the core a few at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pgnode.xray.config.inbounds import short
from pgnode.xray.process.unbindable import OWN_SECTIONS

#: Sections in an order in which each only needs those before it; unknown ones come last.
_FIRST_SECTIONS: Final = ("log", "stats", "policy", "fakedns", "fakeDns", "dns", "geodata", "version", "transport")
_OBSERVERS: Final = ("observatory", "burstObservatory")


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a config: an entry of a list (``section`` dotted: "routing.rules") or a whole section (index -1)."""

    section: str
    index: int
    value: Any
    #: Place in the panel's own list, from 1; 0 where that is not known.
    number: int = 0

    @property
    def name(self) -> str:
        """How an operator would call it: by tag, else by number."""
        if self.index < 0:
            return self.section
        label = {"inbounds": "inbound", "outbounds": "outbound", "routing.rules": "routing rule"}.get(
            self.section, "balancer"
        )
        value = self.value if isinstance(self.value, dict) else {}
        tag = value.get("tag") or value.get("ruleTag")
        title = f"{label} {short(tag)}" if isinstance(tag, str) and tag else f"{label} #{self.number or self.index + 1}"
        protocol = value.get("protocol")
        return (
            f"{title} ({protocol})"
            if isinstance(protocol, str) and len(protocol) < 20 and protocol.isprintable()
            else title
        )


def parts_of(document: dict[str, Any], numbers: Mapping[str, Sequence[int]] | None = None) -> list[Part]:
    """Cut the config into pieces, in an order in which every piece only needs earlier ones.

    Args:
        document: The config.
        numbers: By section the place of each item in the panel's own list; by default they are numbered as they stand.

    Returns:
        The pieces.
    """
    parts: list[Part] = []
    places = numbers or {}

    def add_section(name: str) -> None:
        if name in document and name not in OWN_SECTIONS:
            parts.append(Part(name, -1, document[name]))

    def add_list(name: str, value: Any) -> None:
        if isinstance(value, list):
            count = places.get(name) or range(1, len(value) + 1)
            parts.extend(Part(name, index, item, count[index]) for index, item in enumerate(value))
        elif value is not None:
            parts.append(Part(name, -1, value))

    for name in _FIRST_SECTIONS:
        add_section(name)
    add_list("outbounds", document.get("outbounds"))
    for name in _OBSERVERS:
        add_section(name)
    add_list("inbounds", document.get("inbounds"))
    routing = document.get("routing")
    if isinstance(routing, dict):
        rest = {key: value for key, value in routing.items() if key not in {"rules", "balancers"}}
        if rest:
            parts.append(Part("routing", -1, rest))
        add_list("routing.balancers", routing.get("balancers"))
        add_list("routing.rules", routing.get("rules"))
    else:
        add_section("routing")
    done = {*_FIRST_SECTIONS, *_OBSERVERS, "outbounds", "inbounds", "routing"}
    for name in document:
        if name not in done:
            add_section(name)
    return parts


def assemble(parts: Iterable[Part]) -> dict[str, Any]:
    """Make a config of these pieces alone."""
    document: dict[str, Any] = {}
    for part in parts:
        *parents, name = part.section.split(".")
        target = document
        for parent in parents:
            target = target.setdefault(parent, {})
        if part.index >= 0:
            target.setdefault(name, []).append(part.value)
        else:
            target[name] = dict(part.value) if isinstance(part.value, dict) else part.value
    return document
