"""Children that were left by the program before a restart in place, and that nobody knows: their ends are taken note of.

Without that they would be zombies for as long as the node lives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

import psutil

from pgnode.os_support.pidfd import Pidfd


def find_unknown(known: Collection[int], is_known: Callable[[int], bool] = lambda _pid: False) -> list[Pidfd]:
    """Find children of this process that nobody waits for.

    Args:
        known: Pids that somebody does wait for.
        is_known: Says so of further ones.

    Returns:
        Their descriptors.
    """
    found: list[Pidfd] = []
    for child in psutil.Process().children():
        if child.pid not in known and not is_known(child.pid):
            with contextlib.suppress(OSError):
                found.append(Pidfd(child.pid))
    return found


async def reap(children: Collection[Pidfd]) -> None:
    """Reap each of them when it has ended, until all have, or until cancelled.

    Args:
        children: What :func:`find_unknown` found; they are closed.
    """

    async def one(child: Pidfd) -> None:
        with child:
            await child.wait()
            child.reap()

    await asyncio.gather(*(one(child) for child in children))
