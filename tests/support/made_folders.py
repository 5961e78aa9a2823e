"""Folders that tests make outside those of pytest, since paths of sockets must be short; and which of them are left.

All that this process makes with :mod:`tempfile` and this prefix is noted together with the test that made it. What is
there when the last test and its fixtures have ended was forgotten.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

#: How the names of these folders begin.
PREFIX = "pgn"

_make = tempfile.mkdtemp
_made: dict[str, str] = {}


def _make_and_note(*args: Any, **kwargs: Any) -> Any:
    made = _make(*args, **kwargs)
    if Path(os.fsdecode(made)).name.startswith(PREFIX):
        _made[os.fsdecode(made)] = os.environ.get("PYTEST_CURRENT_TEST", "before any test")
    return made


def begin() -> None:
    """Take note of them from now on."""
    tempfile.mkdtemp = _make_and_note


def left_behind() -> list[str]:
    """Forget those noted so far, and return a sentence for each that is still there."""
    noted = dict(_made)
    _made.clear()
    return [f"{folder} was left behind by {test}" for folder, test in noted.items() if Path(folder).exists()]
