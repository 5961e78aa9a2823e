"""A clock that can be set, for a node's Python processes: with this folder on PYTHONPATH, ``time.time`` is ahead.

CLOCK_FILE names the file that says by how many seconds. Timers go by the monotonic clock, which nobody can set. gRPC keeps
the time as it is: it makes a moment from a call's time limit and hands it to code that asks the kernel for the time. Processes
that are forked from a supervisor have its clock; those that are started have the machine's, as they are not told of the file.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_FILE = Path(os.environ["CLOCK_FILE"])
_real_time = time.time

#: Whose time is left alone: gRPC's, also where the code above it is the only frame, since compiled functions have none.
_LEFT_ALONE = ("grpc", "pgnode.api.grpc.messages")


def _set_time() -> float:
    if str(sys._getframe(1).f_globals.get("__name__")).startswith(_LEFT_ALONE):
        return _real_time()
    try:
        return _real_time() + float(_FILE.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _real_time()


time.time = _set_time
