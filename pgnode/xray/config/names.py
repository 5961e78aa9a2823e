"""Names in a config: tags, protocols, geo codes. They stand in log lines, counters and errors, so they are kept short and plain.

Pure. They are looked at when a start asks for the config, and not in one that runs already.
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


def _fault(place: str, text: str, is_name: bool) -> str | None:
    found = control_character(text)
    if found is not None:
        return f"{place} {short(text)} holds the control character {found!r}"
    if is_name and len(text) > NAME_CHARACTERS_MAX:
        return f"{place} {short(text)} has {len(text):,} characters, {NAME_CHARACTERS_MAX} are allowed"
    if is_name and COUNTER_SEPARATOR in text:
        return f'{place} {short(text)} holds "{COUNTER_SEPARATOR}", which stands between the parts of the names of counters'
    return None


def _texts(document: dict[str, Any], numbers: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, str, bool]]:
    """Yield the texts that have to be plain, with their places, and whether they are names."""
    for section, (label, tag_key) in _LISTS.items():
        for item, number in zip(list_at(document, section), numbers.get(section, ()), strict=False):
            tag = item.get(tag_key) if isinstance(item, dict) else None
            has_name = isinstance(tag, str) and tag and _fault("", tag, True) is None
            yield from _texts_in(
                f"{label} {short(tag) if has_name else f'#{number}'}:", item, plain=section not in document
            )
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
