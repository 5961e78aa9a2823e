"""Memory that large messages took goes back to the system when they are gone (glibc; other C libraries have no such calls).

By itself glibc takes blocks of up to 32 MB from its heap once one of that size was freed, and for each thread from a heap of
its own; what is freed there between objects that live on stays. After :func:`keep_large_blocks_apart` a large block is a
mapping of its own, which ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes

#: Bytes from which on a block is a mapping of its own. More than all that comes often, since a mapping takes microseconds.
LARGE_BYTES = 1024 * 1024

#: Heaps that threads share, beside the main one. What is large is made in threads, one after the other.
ARENAS_MAX = 2

#: Parameters of mallopt(3).
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


def keep_large_blocks_apart() -> None:
    """Set this for the process and those it forks. Call it before the process has threads."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(_M_ARENA_MAX, ARENAS_MAX)


def trim_heap() -> None:
    """Return free memory to the system. Takes milliseconds for each 100 MB of heap."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
