"""The process of a client core: ``python -m pgnode.testing.client_core <pid of the parent>``, its config on stdin.

The core is the same library that the node embeds; one process holds one core at most, hence a process of its own.
It dies with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import xray

#: ``PR_SET_PDEATHSIG`` of prctl(2).
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the core that the config on stdin describes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # the parent ended before the line above
        return 1
    xray.startFromJSON(sys.stdin.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
