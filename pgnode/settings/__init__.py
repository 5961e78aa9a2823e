"""The node's settings.

Declared in ``model``, read and checked in ``loading``, described in ``document``, given to workers by ``handover``.
"""

from pgnode.settings.checks import default_state_dir
from pgnode.settings.env_file import names_in_env_file
from pgnode.settings.loading import load, load_from, other_variables, read_api_key, shown_url, unknown_settings
from pgnode.settings.model import Settings

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
