"""Names in a config: tags, protocols, geo codes. They stand in log lines, counters and errors, so they are kept short and plain.

One rule for all of them, in configs and in rules that callers add: no control characters, no ``>>>``, and not too long. Marks
that turn the direction of text, and those that join letters, may stand in names, since Arabic and Persian ones have them; whoever
prints a name for an operator shows them as their escapes (:func:`pgnode.os_support.log_text.printable`).

Pure. Names are looked at when a start asks for the config, and not in one that runs already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pgnode.wire.texts import COUNTER_SEPARATOR, control_character
from pgnode.xray.config.inbounds import short
from pgnode.xray.config.numbering import list_at

#: Characters of a name, at most.
NAME_CHARACTERS_MAX: Final = 256

#: Fields that hold names wherever they stand, in small letters.
_NAMES: Final = frozenset(
    {
        "tag",
        "ruletag",
        "inboundtag",
        "outboundtag",
        "balancertag",
        "fallbacktag",
        "dialerproxy",
        "protocol",
        "network",
        "security",
        "listen",
        "email",
    }
)

#: Sections that hold nothing but names and plain values.
_PLAIN_SECTIONS: Final = frozenset(
    {"log", "routing", "dns", "fakedns", "observatory", "burstobservatory", "reverse", "metrics", "policy", "stats"}
)


#: Sections whose tag rules may lead to, too.
_AS_OUTBOUNDS: Final = ("api", "metrics")

#: Names that an error lists, at most.
_NAMES_LISTED: Final = 5

#: Lists whose items are named by tag or number, with what an operator calls an item and where its tag is.
_LISTS: Final = {
    "inbounds": ("inbound", "tag"),
    "outbounds": ("outbound", "tag"),
    "routing.rules": ("routing rule", "ruleTag"),
    "routing.balancers": ("balancer", "tag"),
}


def name_fault(document: dict[str, Any], numbers: Mapping[str, Sequence[int]]) -> str | None:
    """Say which name in a config cannot be one: it holds a control character, or is too long.

    Args:
        document: The config.
        numbers: By list the place of each item in the panel's own.

    Returns:
        A sentence that begins with the place, or None.
    """
    return next(
        (fault for place, text, is_name in _texts(document, numbers) if (fault := _fault(place, text, is_name))), None
    )


def unplain(text: str, *, is_name: bool) -> str | None:
    """Say why a text cannot stand in a config or a rule, to be said after its place; None where it can.

    Args:
        text: The text.
        is_name: It is a name, which counters, log lines and callers show.

    Returns:
        The text in quotes, and what is wrong with it; or None.
    """
    found = control_character(text)
    if found is not None:
        return f"{short(text)} holds the control character {found!r}"
    if is_name and len(text) > NAME_CHARACTERS_MAX:
        return f"{short(text)} has {len(text):,} characters, {NAME_CHARACTERS_MAX} are allowed"
    if is_name and COUNTER_SEPARATOR in text:
        return f'{short(text)} holds "{COUNTER_SEPARATOR}", which stands between the parts of the names of counters'
    return None


def _fault(place: str, text: str, is_name: bool) -> str | None:
    fault = unplain(text, is_name=is_name)
    return f"{place} {fault}" if fault is not None else None


def outbound_names(document: Mapping[str, Any]) -> list[str]:
    """Return the tags of everything that traffic can be sent to: outbounds, and what reverse proxies offer as such."""
    outbounds = [outbound.get("tag") for outbound in list_at(document, "outbounds") if isinstance(outbound, dict)]
    return [tag for tag in (*outbounds, *_reverse_tags(document)) if isinstance(tag, str) and tag]


def balancer_names(document: Mapping[str, Any]) -> list[str]:
    """Return the tags of a config's balancers."""
    balancers = [item for item in list_at(document, "routing.balancers") if isinstance(item, dict)]
    return [tag for item in balancers for key, tag in item.items() if key.lower() == "tag" and isinstance(tag, str)]


def listed(names: Sequence[str]) -> str:
    """Return names for an error, in quotes, of many only the first ones."""
    shown = ", ".join(map(short, names[:_NAMES_LISTED])) or "none"
    return f"{shown} and {len(names) - _NAMES_LISTED} more" if len(names) > _NAMES_LISTED else shown


def target_fault(document: Mapping[str, Any], numbers: Mapping[str, Sequence[int]]) -> str | None:
    """Say which rule leads to a balancer that the config does not have. The core would end over it.

    Args:
        document: The config.
        numbers: By list the place of each item in the panel's own.

    Returns:
        A sentence that begins with the rule, or None.
    """
    known = balancer_names(document)
    for place, rule in _rules(document, numbers):
        tag = rule.get("balancerTag")
        if isinstance(tag, str) and tag and not rule.get("outboundTag") and tag not in known:
            return f"{place} unknown balancerTag {short(tag)}; the config has {listed(known)}"
    return None


def target_warnings(document: Mapping[str, Any], numbers: Mapping[str, Sequence[int]]) -> list[str]:
    """Say which rules lead to an outbound that the config does not have; the core drops such connections.

    That is no reason to refuse a config: panels have been sending it, and the rest of it works.

    Args:
        document: The config.
        numbers: By list the place of each item in the panel's own.

    Returns:
        A sentence for each tag that nothing has.
    """
    known = {*outbound_names(document), *(str(_part(document, name).get("tag")) for name in _AS_OUTBOUNDS)}
    found: dict[str, str] = {}
    for place, rule in _rules(document, numbers):
        tag = rule.get("outboundTag")
        if isinstance(tag, str) and tag and tag not in known:
            found.setdefault(tag, f"{place} no outbound has the tag {short(tag)}: connections that match are dropped")
    return list(found.values())


def _rules(
    document: Mapping[str, Any], numbers: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    section = "routing.rules"
    for rule, number in zip(list_at(document, section), numbers.get(section, ()), strict=False):
        if isinstance(rule, dict):
            yield f"{_title('routing rule', rule.get('ruleTag'), number)}:", rule


def _reverse_tags(document: Mapping[str, Any]) -> Iterator[Any]:
    portals = _part(document, "reverse").get("portals")
    yield from (portal.get("tag") for portal in portals or [] if isinstance(portal, dict))
    for inbound in list_at(document, "inbounds"):
        clients = _part(inbound, "settings").get("clients")
        for client in clients or []:
            yield _part(client, "reverse").get("tag")


def _part(value: object, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _title(label: str, tag: object, number: int) -> str:
    has_name = isinstance(tag, str) and tag and unplain(tag, is_name=True) is None
    return f"{label} {short(tag) if has_name else f'#{number}'}"


def _texts(document: dict[str, Any], numbers: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, str, bool]]:
    """Yield the texts that have to be plain, with their places, and whether they are names."""
    for section, (label, tag_key) in _LISTS.items():
        for item, number in zip(list_at(document, section), numbers.get(section, ()), strict=False):
            tag = item.get(tag_key) if isinstance(item, dict) else None
            yield from _texts_in(f"{_title(label, tag, number)}:", item, plain=section not in document)
    for section, value in document.items():
        if section == "routing" and isinstance(value, dict):
            rest: Any = {name: part for name, part in value.items() if f"routing.{name}" not in _LISTS}
            yield from _texts_in("routing", rest, plain=True)
        elif section not in _LISTS:
            yield from _texts_in(section, value, plain=section.lower() in _PLAIN_SECTIONS)


def _texts_in(title: str, part: Any, *, plain: bool) -> Iterator[tuple[str, str, bool]]:
    # An explicit stack: how deep a config is nested is up to who sent it.
    stack: list[tuple[str, str, Any]] = [("", "", part)]
    while stack:
        path, key, value = stack.pop()
        is_name = key.lower() in _NAMES
        if isinstance(value, str):
            if plain or is_name:
                yield f"{title} {path}".rstrip(), value, is_name
        elif isinstance(value, dict):
            if plain:
                yield from ((f"{title} {path}".rstrip() + ": the key", name, False) for name in value)
            stack.extend(
                (f"{path}.{short(name)[1:-1]}".lstrip("."), name, item) for name, item in reversed(value.items())
            )
        elif isinstance(value, list):
            stack.extend((f"{path}[{index}]", key, item) for index, item in reversed(list(enumerate(value))))
