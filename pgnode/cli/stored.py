"""What commands tell the operator when the node does not answer."""

from __future__ import annotations

import time

from pgnode.errors import NotAnsweringError, NotRunningError, OperatorError
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


def no_state(settings: Settings, pid: int | None) -> OperatorError:
    """Return the error that there is no store in this state folder.

    Args:
        settings: The folder.
        pid: The supervisor; None where none runs.

    Returns:
        The error, with the exit code of a node that does not run, or that does not answer.
    """
    if pid is None:
        return NotRunningError(
            f"no node has run with STATE_DIR={settings.state_dir}: there is no {settings.store_path.name}. Start it with "
            "`pgnode run`, or say with --state-dir which node is meant"
        )
    return NotAnsweringError(
        f"the supervisor (pid {pid}) has made no {settings.store_path} yet: it is starting, or `pgnode status` tells more"
    )
