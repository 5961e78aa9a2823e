"""Waiting with a deadline for what has no event to wait for; the only place where tests sleep."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

#: Pause between two looks, and the first one.
POLL_SECONDS = 0.05
FIRST_POLL_SECONDS = 0.005

#: How much longer than a look itself the pause after it is, where looks are expensive.
REST = 4

#: What has to happen soon gets this long: a machine with other things to do may stop any process for seconds.
DEADLINE_SECONDS = 30.0


async def eventually(
    look: Callable[[], object],
    what: str,
    timeout_seconds: float = DEADLINE_SECONDS,
    *,
    errors: tuple[type[Exception], ...] = (),
    rest: bool = False,
) -> Any:
    """Look again and again until ``look`` (a function or a coroutine function) returns something true, and return that.

    Exceptions of the types ``errors`` count as "not yet". With ``rest`` the pauses are as long as looks are expensive, which
    keep the machine from doing what is waited for. AssertionError with ``what`` and the last thing seen when the time is up.
    """
    deadline = time.monotonic() + timeout_seconds
    poll_seconds = FIRST_POLL_SECONDS
    while True:
        began = time.monotonic()
        try:
            found = look()
            seen = await found if inspect.isawaitable(found) else found
            if seen:
                return seen
            last: object = seen
        except errors as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds:g} s: {what}; last seen: {last!r}")
        took = time.monotonic() - began
        await asyncio.sleep(max(poll_seconds, REST * took) if rest else poll_seconds)
        poll_seconds = min(1.5 * poll_seconds, POLL_SECONDS)


async def pause() -> None:
    """The pause between two looks at something that has no event to wait for."""
    await asyncio.sleep(POLL_SECONDS)


async def next_turn() -> None:
    """Let every task that can go on do so once."""
    await asyncio.sleep(0)
