"""Which place a part of the core's config has in the panel's own: errors count as who reads them does. Pure.

The node takes parts out of a config (a panel's own way to the core's API) and puts rules of its own into it, so the lists
that the core gets are others than those that the panel sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Lists whose items are known by their place where they have no tag; dotted.
NUMBERED: Final = ("inbounds", "outbounds", "routing.rules", "routing.balancers")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The places of parts in the panel's lists, from 1."""

    #: By section: the items as they came, in their order. They are kept, and so their identity is theirs alone.
    items: Mapping[str, tuple[Any, ...]]

    def of(self, document: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Give the numbers of the parts of a config that was made of the panel's.

        Args:
            document: The config.

        Returns:
            By section the number of each item; 0 for what is not the panel's. Where none is (rules that a caller changed), they
            are numbered as they stand.
        """
        found: dict[str, tuple[int, ...]] = {}
        for section, originals in self.items.items():
            places = {id(item): number for number, item in enumerate(originals, start=1)}
            there = list_at(document, section)
            numbers = tuple(places.get(id(item), 0) for item in there)
            found[section] = numbers if any(numbers) else tuple(range(1, len(there) + 1))
        return found


def number_parts(document: Mapping[str, Any]) -> Numbers:
    """Note the places of the parts of a panel's config, before it is rewritten."""
    return Numbers({section: tuple(list_at(document, section)) for section in NUMBERED})


def list_at(document: Mapping[str, Any], section: str) -> list[Any]:
    """Return the list at a dotted path; empty where there is none."""
    found: Any = document
    for name in section.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, list) else []
