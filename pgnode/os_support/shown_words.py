"""What ``ps`` shows of a process that was forked: the words and the environment of what it has become, not those of its parent.

The kernel reads both where a process says they are (prctl(2), PR_SET_MM_MAP). Linux from 3.18 on, where it was built with
CONFIG_CHECKPOINT_RESTORE, as distributions do; no privileges are needed. A sandbox that imitates Linux may lack it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_PR_SET_MM: Final = 35
_PR_SET_MM_MAP: Final = 14
_NO_FILE: Final = 0xFFFFFFFF

#: Which numbers of /proc/self/stat (proc(5), from 1) are which places in memory.
_IN_STAT: Final = {
    "start_code": 26,
    "end_code": 27,
    "start_stack": 28,
    "start_data": 45,
    "end_data": 46,
    "start_brk": 47,
}


class _Map(ctypes.Structure):
    """The kernel's struct prctl_mm_map."""

    _fields_ = (
        *(
            (name, ctypes.c_uint64)
            for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack")
        ),
        *((name, ctypes.c_uint64) for name in ("arg_start", "arg_end", "env_start", "env_end", "auxv")),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


_SBRK: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_ssize_t)
_PRCTL: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong, use_errno=True
)

#: Where the words are; the kernel reads them as long as the process lives.
_kept: list[mmap.mmap] = []


def show(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Have this process shown with these words and this environment. Call it while there is no other thread.

    Args:
        words: The words of its command line.
        environment: Its environment.

    Raises:
        OSError: The system does not know that.
    """
    line = b"".join(os.fsencode(word) + b"\0" for word in words)
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    memory = mmap.mmap(-1, len(line) + len(variables), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(line + variables)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    # The name of the program, in brackets, may hold anything.
    numbers = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
    places = _Map(**{name: int(numbers[number - 3]) for name, number in _IN_STAT.items()})
    places.arg_start, places.arg_end = start, start + len(line)
    places.env_start, places.env_end = places.arg_end, places.arg_end + len(variables)
    places.exe_fd = _NO_FILE
    libc = ctypes.CDLL(None)
    sbrk = _SBRK(("sbrk", libc))
    prctl = _PRCTL(("prctl", libc))
    # Whatever memory these calls themselves take they have by then: the end of the heap must not move between the last two.
    prctl(_PR_SET_MM, _PR_SET_MM_MAP, None, 0, 0)
    places.brk = sbrk(0)
    places.brk = sbrk(0)
    if prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(places), ctypes.sizeof(places), 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_MM_MAP) failed")
    _kept.append(memory)
