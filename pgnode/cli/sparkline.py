"""A row of bars, one a value. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "._-=+*#@"


def sparkline(values: Sequence[float], width: int, *, plain: bool = False) -> str:
    """Return the last values as bars, the newest at the right.

    Args:
        values: The values, none of them negative; the highest shown one is a whole bar, and 0 the lowest one.
        width: Columns.
        plain: Of ASCII alone, for terminals that show nothing else.

    Returns:
        As many characters as there are columns; blanks where there are no values yet.
    """
    bars = _PLAIN_BARS if plain else _BARS
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    made = "".join(bars[round(value / top * (len(bars) - 1)) if top > 0 else 0] for value in shown)
    return made.rjust(max(width, 0))
