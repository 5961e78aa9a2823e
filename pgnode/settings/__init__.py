"""The node's settings.

Declared in ``model``, read and checked in ``loading``, described in ``document``, given to workers by ``handover``.
"""

from pgnode.settings.loading import load, read_api_key, shown_url, unknown_settings
from pgnode.settings.model import Settings, default_state_dir

__all__ = ["Settings", "default_state_dir", "load", "read_api_key", "shown_url", "unknown_settings"]
