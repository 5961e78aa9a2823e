"""Ending tasks for sure: a cancellation can get lost where a library's own timeout ends in the same turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

#: Pause before a task that goes on is cancelled again.
AGAIN_SECONDS = 0.3


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these tasks until they have ended. Their results and errors are theirs to look at."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
