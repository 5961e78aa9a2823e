"""Variables that a config gives its core: those that say where the core finds its files are the node's. Pure.

With them a config would have the core write what it downloads as geo data over any file of the node's user.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pgnode.xray.config.inbounds import short

#: The part of a config, in small letters: the core minds no capitals.
_SECTION: Final = "env"

#: How the names begin, in small letters and with dots; the core takes them with underscores as well.
_LOCATIONS: Final = "xray.location."


def variable_fault(document: dict[str, Any]) -> str | None:
    """Say which variable of a config is the node's, or None.

    Args:
        document: The config.

    Returns:
        A sentence that begins with the place.
    """
    for place, name in _names(document):
        if name.strip().lower().replace("_", ".").startswith(_LOCATIONS):
            return f"config: {place} {short(name)} is not for a config: the node says where the core finds its files"
    return None


def _names(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for section, part in document.items():
        if section.lower() == _SECTION and isinstance(part, dict):
            for name in part:
                yield section, name
