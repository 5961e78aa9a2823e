"""Children that nobody knows: those of the program before a restart in place, and orphans that the kernel gave to process 1.

Their ends are taken note of; without that they would be zombies for as long as the node lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection

import multiprocess

from pgnode.os_support.children import ZOMBIE, children
from pgnode.os_support.pidfd import Pidfd

#: The process that the kernel gives orphans to. In a container without an init it is the supervisor.
INIT = 1

#: Seconds between two looks for orphans that have ended. Whoever knows a child reaps it within one.
POLL_INTERVAL_SECONDS = 5.0


def find_unknown(known: Collection[int], is_known: Callable[[int], bool] = lambda _pid: False) -> list[Pidfd]:
    """Find children of this process that nobody waits for.

    Args:
        known: Pids that somebody does wait for.
        is_known: Says so of further ones.

    Returns:
        Their descriptors.
    """
    found: list[Pidfd] = []
    for pid in children(os.getpid()):
        if pid not in known and not is_known(pid):
            with contextlib.suppress(OSError):
                found.append(Pidfd(pid))
    return found


async def reap(found: Collection[Pidfd]) -> None:
    """Reap each of them when it has ended, until all have, or until cancelled.

    Args:
        found: What :func:`find_unknown` found; they are closed.
    """

    async def one(child: Pidfd) -> None:
        with child:
            await child.wait()
            child.reap()

    await asyncio.gather(*(one(child) for child in found))


async def reap_orphans(interval_seconds: float = POLL_INTERVAL_SECONDS) -> None:
    """Reap what others left to this process and what has ended, again and again, until cancelled.

    A child that has ended and is there at two looks is nobody's.

    Args:
        interval_seconds: Seconds between two looks.
    """
    before: set[int] = set()
    while True:
        await asyncio.sleep(interval_seconds)
        ended = await asyncio.to_thread(_ended)
        if ended & before:
            # It has to reap its own by itself: it would send signals to whoever has their pids next.
            multiprocess.active_children()
            _reap(ended & before)
        before = ended


def _reap(pids: Collection[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _ended() -> set[int]:
    """Return the children of this process that have ended and were not reaped."""
    with contextlib.suppress(ChildProcessError):
        # Nearly always there is none, which is known at once.
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return {pid for pid, state in children(os.getpid()).items() if state == ZOMBIE}
    return set()
