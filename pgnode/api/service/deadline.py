"""How long the caller of this request waits, where its transport says so; each request runs in a context of its own."""

from __future__ import annotations

import time
from contextvars import ContextVar

from pgnode.errors import DeadlineExceededError

#: Monotonic time at which the caller gives up; None where it did not say.
_deadline: ContextVar[float | None] = ContextVar("the caller's deadline", default=None)


def set_caller_timeout(seconds: float) -> None:
    """Note how long the caller goes on waiting, for this request and the tasks that it starts."""
    _deadline.set(time.monotonic() + seconds)


def remaining(limit_seconds: float) -> float:
    """Return the time that work for the caller may take.

    Args:
        limit_seconds: What it may take at most, in seconds.

    Returns:
        ``limit_seconds``, or less where the caller gives up before.

    Raises:
        DeadlineExceededError: The caller has given up already.
    """
    deadline = _deadline.get()
    if deadline is None:
        return limit_seconds
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceededError("the caller's deadline has passed: nothing was begun")
    return min(limit_seconds, left)
