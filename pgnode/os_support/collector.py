"""The interpreter's collector of cycles, for a process that makes many objects which live on and next to no cycles."""

from __future__ import annotations

import gc

#: Objects that come before the youngest are walked, and how often a generation is walked before the next one is. By default
#: these are 700, 10 and 10, with which the collector took a fifth of the time in which 100,000 users are taken in, and a tenth
#: of that of a start.
THRESHOLDS = (20_000, 20, 20)


def collect_seldom() -> None:
    """Walk what is made from now on less often. Call it before the imports, of which nearly everything stays."""
    gc.set_threshold(*THRESHOLDS)


def spare_what_is_loaded() -> None:
    """Walk modules, classes and functions never again, and what is made from now on less often. Call it when all is imported.

    Nothing is collected before: that takes as long as a tenth of the imports, and finds some fifty objects.
    """
    gc.freeze()
    collect_seldom()
