"""Signals that ask a supervisor for something, kept from everybody else.

A service manager sends them to all processes of a service unless it is told otherwise (``systemctl kill -s USR2 pgnode``), and a
process that does not know them ends by them: the core, with its connections. Blocked, they wait in such a process for ever.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

#: Reload and restart in place; the third is what other services open their log files anew for.
REQUESTS: Final = (signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Have the processes that this thread starts in the meantime inherit that these signals are blocked.

    Nothing is lost for this process: what comes in the meantime is handled afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_from_this_process() -> None:
    """Block these signals in this thread, and in those that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)


def ended_by_request(code: int) -> bool:
    """Tell whether a process that had no time to block them was ended by one of these signals.

    Args:
        code: Its exit code; negative where a signal ended it.

    Returns:
        Whether it was.
    """
    return -code in REQUESTS
