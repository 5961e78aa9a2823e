"""Ending with the parent: the kernel sends a process a signal when its parent has gone, also after ``kill -9``.

``python -m pgnode.os_support.pdeath PARENT POINTS COMMAND…`` sets that up for a program that cannot do it itself, and becomes
the program, unless the process PARENT has gone by then; :func:`command` makes such a command line. POINTS let the program be
ended before its parent when memory runs out (:mod:`pgnode.os_support.oom_score`). A module of Python (``python -m …``) is run by
the interpreter that is there already: starting a second one would cost more than all this.
Linux only (prctl(2), PR_SET_PDEATHSIG). The setting is the process's own: a child made by fork does not inherit it.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Sequence

from pgnode.os_support import lean_start, oom_score

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals = signal.SIGKILL, parent: int | None = None) -> None:
    """Be sent a signal when the parent's thread that started this process ends. Call it from the main thread.

    Args:
        number: The signal.
        parent: The pid that the parent should have. When it has another one, the parent died before the call, and this
            process sends itself the signal at once.

    Raises:
        OSError: The kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def command(program: Sequence[str], oom_points: int = oom_score.EXPENDABLE_POINTS) -> list[str]:
    """Make the command line that runs a program as a child of this process, and not a moment longer than this process.

    Args:
        program: The program and its arguments.
        oom_points: By how much sooner than this process it is ended when memory runs out.

    Returns:
        The command line; this process must be the one that starts it.
    """
    return [sys.executable, "-m", "pgnode.os_support.pdeath", str(os.getpid()), str(oom_points), *program]


def is_module(program: Sequence[str]) -> bool:
    """Return whether a program is a module that this interpreter runs."""
    return list(program[:2]) == [sys.executable, "-m"]


def main(arguments: Sequence[str]) -> None:
    """Become a program that ends with its parent.

    Args:
        arguments: The parent's pid, the points, the program, and its arguments.
    """
    parent, points, *program = arguments
    die_with_parent(parent=int(parent))
    oom_score.raise_own(int(points))
    if is_module(program):
        lean_start.begin()
        sys.argv[:] = program[2:]
        runpy.run_module(program[2], run_name="__main__", alter_sys=True)
    else:
        os.execvp(program[0], program)  # noqa: S606 - the supervisor's own command line


if __name__ == "__main__":
    main(sys.argv[1:])
