"""How a process of the node begins: without what its imports cost and nobody needs. Call it before the others are made."""

from __future__ import annotations

import importlib
import sys
from typing import Final

from pgnode.os_support.collector import collect_seldom

#: Tells a supervisor the number of the descriptor of what the program before it in its process has checked.
CHECKED_VARIABLE: Final = "PGNODE_CHECKED_FD"


def begin() -> None:
    """Let the collector of cycles rest during the imports, and load structlog without rich."""
    collect_seldom()
    load_structlog()


def load_structlog() -> None:
    """Import structlog as if rich were not installed: it would load that for tracebacks, which look otherwise here.

    Nothing happens where one of them is loaded already. Afterwards rich can be imported as ever.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    # What Python takes for a module that cannot be imported.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
