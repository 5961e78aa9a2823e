"""What asyncio lacks: ending tasks reliably, and trying again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

_ResultT = TypeVar("_ResultT")

#: Pause before a task that goes on is cancelled again.
CANCEL_AGAIN_SECONDS = 0.3


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], *, again_seconds: float = CANCEL_AGAIN_SECONDS) -> None:
    """Cancel tasks until they have ended; their results and errors are left to whoever wants them.

    One cancellation may not do: it gets lost where a library's own timeout ends in the same turn of the loop.

    Args:
        tasks: Tasks of this event loop; those that have ended are left alone.
        again_seconds: Pause before a task that goes on is cancelled again.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_seconds)


async def retry(
    attempt: Callable[[], Awaitable[_ResultT]],
    errors: tuple[type[BaseException], ...],
    *,
    pause_seconds: float,
    on_error: Callable[[BaseException], None] | None = None,
) -> _ResultT:
    """Try until it works; the caller sets the deadline.

    Args:
        attempt: What to try.
        errors: What a failed attempt raises; anything else is passed on.
        pause_seconds: Seconds between two attempts.
        on_error: Told of every failed attempt.

    Returns:
        What the attempt returned that worked.
    """
    while True:
        try:
            return await attempt()
        except errors as error:
            if on_error is not None:
                on_error(error)
        await asyncio.sleep(pause_seconds)
