"""The node's settings.

Declared in ``model``, read and checked in ``loading``, described in ``document``, given to workers by ``handover``. What is named
here is loaded when it is used: workers need none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgnode.settings.api_key import read_api_key
    from pgnode.settings.checks import default_state_dir
    from pgnode.settings.env_file import names_in_env_file
    from pgnode.settings.loading import load, load_from, other_variables, unknown_settings
    from pgnode.settings.model import Settings
    from pgnode.settings.shown import shown_url

__all__ = [
    "Settings",
    "default_state_dir",
    "load",
    "load_from",
    "names_in_env_file",
    "other_variables",
    "read_api_key",
    "shown_url",
    "unknown_settings",
]

#: Name -> the module that has it.
_PLACES = {
    "Settings": "model",
    "default_state_dir": "checks",
    "load": "loading",
    "load_from": "loading",
    "names_in_env_file": "env_file",
    "other_variables": "loading",
    "read_api_key": "api_key",
    "shown_url": "shown",
    "unknown_settings": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found
