"""The version that panels are told: the level of the API that is spoken, and which node speaks it. Pure.

Panels take ``node_version`` for a release of PasarGuard's Go node: they decide by it what a node can do, and their dashboard says
"update available" while it is lower than the newest one. So the number is that node's, and pgnode's own version stands behind the
plus sign, as a local version does: ``0.5.2.0+pgnode.0.6.0``.

Two readers decide the form. The panel's client drops everything from the first ``+`` or ``-`` on, and reads the rest as Python
packaging does. The dashboard splits at the dots, and takes for 0 whatever is no number: without the zero in front of the plus
sign it would read 0.5.0, and show an update for ever.
"""

from __future__ import annotations

from typing import Final

#: The release of the Go node whose API is spoken.
API_LEVEL: Final = "0.5.2"

#: Characters that panels keep.
CHARACTERS_MAX: Final = 32


def told_version(own: str) -> str:
    """Return what panels are told.

    Args:
        own: The node's own version, as ``0.6.0``; "" where it is not known.

    Returns:
        A version that is no older than :data:`API_LEVEL` for whoever compares it, :data:`CHARACTERS_MAX` characters at most.
    """
    # A plus sign of its own would be the second one.
    name = f"pgnode.{own.replace('+', '.').replace('-', '.')}" if own else "pgnode"
    return f"{API_LEVEL}.0+{name}"[:CHARACTERS_MAX].rstrip(".")
