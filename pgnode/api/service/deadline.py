"""How long the caller of this request waits, where its transport says so; each request runs in a context of its own."""

from __future__ import annotations

import time
from contextvars import ContextVar

from pgnode.errors import DeadlineExceededError

#: Monotonic time at which the caller gives up; None where it did not say.
_deadline: ContextVar[float | None] = ContextVar("caller's deadline", default=None)


def caller_waits(seconds: float) -> None:
    """Note for this request, and the tasks it starts, how long its caller goes on waiting."""
    _deadline.set(time.monotonic() + seconds)


def within(limit_seconds: float) -> float:
    """``limit_seconds``, or less where the caller gives up before. Raises DeadlineExceededError when it has already."""
    deadline = _deadline.get()
    if deadline is None:
        return limit_seconds
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceededError("the caller's deadline is over: nothing was begun")
    return min(limit_seconds, left)
