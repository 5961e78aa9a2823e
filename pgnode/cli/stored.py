"""What commands tell the operator when the node does not answer."""

from __future__ import annotations

import time

from pgnode.errors import OperatorError
from pgnode.settings import Settings


def not_running(stored_at: float) -> str:
    """Say that the node does not answer, and of when the state is that is shown; ``stored_at`` in Unix seconds."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stored_at))
    return f"the node is not running; this is the state it stored at {at}"


def no_state(settings: Settings) -> OperatorError:
    """Return the error that no node has run with this state folder."""
    return OperatorError(
        f"the node's store does not answer (there is no {settings.store_path.name}): "
        f"is the node with this STATE_DIR={settings.state_dir} running?"
    )
