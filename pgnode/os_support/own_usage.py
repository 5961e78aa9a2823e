"""What this process takes of the machine; cheap enough to be asked every second."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def memory_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Return the memory that is resident.

    Args:
        statm: The kernel's file about it (proc_pid_statm(5)).

    Returns:
        Bytes; 0 where the system does not tell.
    """
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def cpu_seconds() -> float:
    """Return the processor time that was used so far; seconds."""
    return time.process_time()
