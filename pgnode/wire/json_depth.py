"""How deeply JSON may be nested: one limit on every Python, whose own ones differ by version. Pure."""

from __future__ import annotations

from typing import Any, Final

#: Levels of objects and lists; configs that the core understands have some fifteen, messages six.
DEPTH_MAX: Final = 100


def is_too_deep(found: object, levels: int = DEPTH_MAX) -> bool:
    """Return whether something is nested so deeply that whoever follows it down may end over it, be it today or at a restart.

    Args:
        found: What JSON was read to.
        levels: So many objects and lists may be in one another.

    Returns:
        Whether there are more.
    """
    level: list[Any] = [found] if isinstance(found, dict | list) else []
    while level and levels:
        levels -= 1
        level = [
            item
            for part in level
            for item in (part.values() if isinstance(part, dict) else part)
            if isinstance(item, dict | list)
        ]
    return bool(level)
