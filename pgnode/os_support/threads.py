"""Threads of this process: which of them go first, and how soon they take turns."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

#: The least that a thread can be preferred.
_LEAST: Final = 19

#: Seconds after which a running thread hands over to one that waits: the value of Python itself, and a short one.
USUAL_SECONDS: Final = 0.005
OFTEN_SECONDS: Final = 0.0005


def take_turns(*, often: bool) -> None:
    """Have threads take turns often, or as they do by themselves.

    The thread that writes to the store asks for its turn several times a commit. Where the event loop has much to do, as while a
    full set is read, a single change took 0.3 s to be stored, and 0.12 s with turns that come often. At other times those make
    what both do dearer: a change of 128 callers cost 6 % more.
    """
    sys.setswitchinterval(OFTEN_SECONDS if often else USUAL_SECONDS)


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
