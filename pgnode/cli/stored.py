"""What commands tell the operator when the node does not answer."""

from __future__ import annotations

import time

from pgnode.errors import OperatorError
from pgnode.settings import Settings


def not_running(stored_at: float, pid: int | None = None) -> str:
    """Say that a node does not answer, and of when the state is that is shown.

    Args:
        stored_at: When it was stored, Unix seconds.
        pid: The supervisor; None where none runs.

    Returns:
        Half a sentence, or more.
    """
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stored_at))
    why = "the node is not running" if pid is None else f"the supervisor (pid {pid}) does not answer: see pgnode status"
    return f"{why}; this is the state it stored at {at}"


def no_state(settings: Settings) -> OperatorError:
    """Return the error that no node has run with this state folder."""
    return OperatorError(
        f"the node's store does not answer (there is no {settings.store_path.name}): "
        f"is the node with this STATE_DIR={settings.state_dir} running?"
    )
