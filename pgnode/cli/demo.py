"""``pgnode demo``: a private node, real users, real traffic."""

from __future__ import annotations

from pgnode.demo import show


def run_demo() -> int:
    """Show that it works without a panel; returns the exit code."""
    return show.run_demo()
