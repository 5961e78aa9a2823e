"""Threads of this process that a library makes: which of them go first."""

from __future__ import annotations

import contextlib
import os
from typing import Final

#: The least that a thread can be preferred.
_LEAST: Final = 19


def put_behind(name: str, steps: int) -> int:
    """Let threads go behind the main thread where there is not enough of the processors; the threads that they make, too.

    Args:
        name: What the threads are called.
        steps: How much less they are preferred, in steps of ``nice``.

    Returns:
        How many were put behind by this; threads that were before are not counted.
    """
    wanted = min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + steps, _LEAST)
    done = 0
    for number in os.listdir("/proc/self/task"):
        # One that has ended meanwhile.
        with contextlib.suppress(OSError):
            with open(f"/proc/self/task/{number}/comm", encoding="utf-8", errors="replace") as file:
                called = file.read().rstrip("\n")
            if called == name and os.getpriority(os.PRIO_PROCESS, int(number)) < wanted:
                os.setpriority(os.PRIO_PROCESS, int(number), wanted)
                done += 1
    return done
