"""Work on large messages in a thread, so that the event loop goes on answering meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

#: Messages above this are parsed in a thread: 20 MB take the parser tens of milliseconds.
THREAD_BYTES = 1_000_000

_T = TypeVar("_T")
_R = TypeVar("_R")


async def off_loop(work: Callable[[_T], _R], argument: _T, size_bytes: int) -> _R:
    """Call ``work``, in a thread where its argument is large.

    Args:
        work: What to do.
        argument: What to do it with.
        size_bytes: How large the argument is.

    Returns:
        What ``work`` returns.
    """
    if size_bytes > THREAD_BYTES:
        return await asyncio.to_thread(work, argument)
    return work(argument)
