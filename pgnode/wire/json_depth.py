"""How deeply JSON may be nested: one limit on every Python, whose own ones differ by version. Pure."""

from __future__ import annotations

from typing import Any, Final

#: Levels of objects and lists; configs that the core understands have some fifteen, messages six.
DEPTH_MAX: Final = 100


def is_too_deep(found: object, levels: int = DEPTH_MAX) -> bool:
    """Return whether there are more levels than are allowed: code that calls itself for each level would fail at some number.

    Args:
        found: What was read from JSON.
        levels: How many are allowed.

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
